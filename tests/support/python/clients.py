"""Calls everything of both servers that the connection test calls, with the clients that others use. What they
made of the answers goes to standard output as one JSON object."""

import json
import os

import gitlab
from azure.devops.connection import Connection
from msrest.authentication import BasicAuthentication


def azure(url, token, project, repository):
    clients = Connection(base_url=url, creds=BasicAuthentication("", token)).clients
    core, git = clients.get_core_client(), clients.get_git_client()
    one = git.get_repository(repository, project)
    return {
        "user": clients.get_location_client().get_connection_data().authenticated_user.provider_display_name,
        "projects": [each.name for each in core.get_projects()],
        "project": core.get_project(project).name,
        "repositories": [each.name for each in git.get_repositories(project)],
        "default_branch": one.default_branch,
        "references": len(git.get_refs(one.id, project)),
    }


def on_gitlab(url, token, project, group):
    with gitlab.Gitlab(url, private_token=token) as api:
        api.auth()
        found = api.projects.get(project)
        return {
            "scopes": api.personal_access_tokens.get("self").scopes,
            "user": api.user.username,
            "version": api.http_get("/metadata")["version"],
            "version_before_metadata": api.version()[0],
            "project": found.path_with_namespace,
            "projects": [each.path_with_namespace for each in api.projects.list(membership=True, get_all=False)],
            "branches": [each.name for each in found.branches.list(get_all=True)],
            "group": api.groups.get(group).full_path,
            "below": [
                each.path_with_namespace
                for each in api.groups.get(group).projects.list(include_subgroups=True, get_all=True)
            ],
        }


given = json.loads(os.environ["GIVEN"])
print(json.dumps({"azure": azure(**given["azure"]), "gitlab": on_gitlab(**given["gitlab"])}))
