//! One method of one address, as the document has it.

use serde_json::{Map, Value, json};

/// Who may call.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Anyone,
    Viewer,
    Dispatcher,
    Admin,
}

/// One method of one address.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    id: &'static str,
    summary: &'static str,
    access: Access,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, &'static str, Option<Value>)>,
}

impl Operation {
    pub(super) fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        access: Access,
    ) -> Self {
        let parameters = Vec::new();
        Self { method, path, id, summary, access, parameters, body: None, answers: Vec::new() }
    }

    pub(super) fn query(mut self, schema: Value) -> Self {
        self.parameters.extend(parameters_of(&schema));
        self
    }

    pub(super) fn header(mut self, name: &str, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "header", "required": false, "description": description,
            "schema": {"type": "string"},
        }));
        self
    }

    pub(super) fn body(mut self, schema: Value) -> Self {
        self.body = Some(schema);
        self
    }

    pub(super) fn answer(mut self, status: u16, description: &'static str, schema: Value) -> Self {
        self.answers.push((status, description, Some(schema)));
        self
    }

    pub(super) fn empty(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push((status, description, None));
        self
    }

    pub(super) fn value(&self, problem: &Value) -> Value {
        let mut parameters = self.parameters.clone();
        for name in ["id", "number"] {
            if self.path.contains(&format!("{{{name}}}")) {
                parameters.push(
                    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
                );
            }
        }
        let mut answers = Map::new();
        for (status, description, schema) in &self.answers {
            let mut answer = json!({ "description": description });
            if let Some(schema) = schema {
                let media = match self.path {
                    path if path.ends_with("/events") => "text/event-stream",
                    path if path.ends_with("/content") => "application/octet-stream",
                    _ => "application/json",
                };
                answer["content"] = json!({ media: { "schema": schema } });
            }
            answers.insert(status.to_string(), answer);
        }
        let failed = json!({
            "description": "A problem; `code` is stable.",
            "content": { "application/problem+json": { "schema": problem } },
        });
        answers.insert("default".to_owned(), failed);
        let (security, role) = match self.access {
            Access::Anyone => (json!([]), None),
            Access::Viewer => (json!([{ "token": [] }]), Some("viewer")),
            Access::Dispatcher => (json!([{ "token": [] }]), Some("dispatcher")),
            Access::Admin => (json!([{ "token": [] }]), Some("admin")),
        };
        let mut operation = json!({
            "operationId": self.id, "summary": self.summary, "security": security, "responses": answers,
        });
        if let Some(role) = role {
            operation["description"] = json!(format!("Needs a token with the role {role} or a higher one."));
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(schema) = &self.body {
            let media =
                if self.path.ends_with("{number}") { "application/octet-stream" } else { "application/json" };
            operation["requestBody"] = json!({ "content": { media: { "schema": schema } } });
        }
        operation
    }
}

/// The parameters that a struct of optional fields stands for.
fn parameters_of(schema: &Value) -> Vec<Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let fields = schema.as_object_mut();
        let description = fields.and_then(|fields| fields.remove("description"));
        json!({
            "name": name, "in": "query", "required": false, "description": description, "schema": schema,
        })
    };
    properties.into_iter().flatten().map(parameter).collect()
}
