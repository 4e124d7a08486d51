// Calls everything of both servers that the connection test calls, with the clients that others use. What they
// made of the answers goes to standard output as one JSON object.
import { createRequire } from "node:module";
const require = createRequire(process.env.PACKAGES);
const azdev = require("azure-devops-node-api");
const { Gitlab } = require("@gitbeaker/rest");

const given = JSON.parse(process.env.GIVEN);

async function azure({ url, token, project, repository }) {
  const connection = new azdev.WebApi(url, azdev.getPersonalAccessTokenHandler(token));
  const data = await connection.connect();
  const core = await connection.getCoreApi();
  const git = await connection.getGitApi();
  const projects = await core.getProjects();
  const found = await core.getProject(project);
  const repositories = await git.getRepositories(project);
  const one = await git.getRepository(repository, project);
  const refs = await git.getRefs(one.id, project);
  return {
    user: data.authenticatedUser.providerDisplayName,
    projects: projects.map((each) => each.name),
    project: found.name,
    repositories: repositories.map((each) => each.name),
    default_branch: one.defaultBranch,
    references: refs.length,
  };
}

async function gitlab({ url, token, project, group }) {
  const api = new Gitlab({ host: url, token });
  const self = await api.PersonalAccessTokens.show();
  const user = await api.Users.showCurrentUser();
  const metadata = await api.Metadata.show();
  const found = await api.Projects.show(project);
  const projects = await api.Projects.all({ membership: true, perPage: 20, maxPages: 1 });
  const branches = await api.Branches.all(found.id);
  const one = await api.Groups.show(group);
  const below = await api.Groups.allProjects(group, { includeSubgroups: true });
  return {
    scopes: self.scopes,
    user: user.username,
    version: metadata.version,
    project: found.path_with_namespace,
    projects: projects.map((each) => each.path_with_namespace),
    branches: branches.map((each) => each.name),
    group: one.full_path,
    below: below.map((each) => each.path_with_namespace),
  };
}

console.log(JSON.stringify({ azure: await azure(given.azure), gitlab: await gitlab(given.gitlab) }));
