//! The document of the API says what there is, and nothing else.

use std::sync::LazyLock;

use axum::http::Method;
use axum::http::response::Parts;

use super::*;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(OPEN_API).unwrap());

/// What a reference of the document is of, or the value itself.
fn resolved(value: &'static Value) -> &'static Value {
    let Some(reference) = value.get("$ref") else {
        return value;
    };
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    DOCUMENT
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{pointer} is not there"))
}

fn paths() -> &'static serde_json::Map<String, Value> {
    DOCUMENT["paths"].as_object().unwrap()
}

/// The path of the document that a request's path is one of.
fn documented(path: &str) -> Option<&'static Value> {
    let given: Vec<&str> = path.split('/').collect();
    let matches = |known: &str| {
        let known: Vec<&str> = known.split('/').collect();
        let same = |(known, given): (&&str, &&str)| known == given || (known.starts_with('{') && !given.is_empty());
        known.len() == given.len() && known.iter().zip(&given).all(same)
    };
    let found = paths().iter().find(|(known, _)| matches(known));
    found.map(|(_, path)| path)
}

/// The document tells of this answer: its status, its content and its headers.
pub(super) fn assert_told(method: &Method, path: &str, head: &Parts) {
    let status = head.status.as_str();
    let Some(its) = documented(path) else {
        assert_eq!(status, "404", "{path} is not in the document");
        return;
    };
    let operations = its.as_object().unwrap();
    // A method that the path has not is told of at the one that it has.
    let known = operations.get(&method.as_str().to_lowercase());
    let operation = known.unwrap_or_else(|| operations.values().next().unwrap());
    let response = operation["responses"].get(status);
    let response = resolved(response.unwrap_or_else(|| panic!("{method} {path} answers {status}")));
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
    let content = header("content-type").map(|content| content.split(';').next().unwrap());
    if let Some(content) = content {
        let contents = response["content"].as_object();
        let is_told = contents.is_some_and(|contents| contents.contains_key(content));
        assert!(is_told, "{method} {path} {status}: {content}");
    }
    for name in ["etag", "allow", "retry-after"]
        .into_iter()
        .filter(|name| header(name).is_some())
    {
        let headers = response["headers"].as_object();
        let is_told = headers.is_some_and(|headers| headers.keys().any(|key| key.eq_ignore_ascii_case(name)));
        assert!(is_told, "{method} {path} {status}: {name}");
    }
}

#[test]
fn all_paths_are_in_the_document_and_no_others() {
    let served = first_paths().into_iter().chain(super::super::v1::paths());
    let served: BTreeSet<&str> = served.map(|(path, _)| path).collect();
    let told: BTreeSet<&str> = paths().keys().map(String::as_str).collect();
    assert_eq!(served, told);
}

#[tokio::test]
async fn each_path_has_the_methods_of_the_document_and_names_them_to_whoever_asks_otherwise() {
    let routes = routed(&rings(&["a"]));
    for (path, operations) in paths() {
        let asked = path
            .replace("{namespace}", "plant")
            .replace("{name}", "a")
            .replace("{id}", "x");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let request = Request::builder().method(method).uri(&asked);
            let answered = ask(&routes, request.body(Body::empty()).unwrap()).await;
            let is_told = operations.get(method.to_lowercase()).is_some();
            assert_eq!(answered.status != 405, is_told, "{method} {path}");
            if !is_told {
                let allowed: Vec<String> = operations.as_object().unwrap().keys().cloned().collect();
                let told = answered.header("allow").to_lowercase();
                assert!(allowed.iter().all(|method| told.contains(method)), "{path}: {told}");
                let is_first = !path.starts_with("/v1/");
                assert!(is_first || answered.error().contains("Allow"), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_and_its_references_are_there() {
    assert_eq!(get_json(&rings(&[]), "/openapi.json").await, (200, DOCUMENT.clone()));
    let mut left = vec![&*DOCUMENT];
    let mut references = 0;
    while let Some(value) = left.pop() {
        references += usize::from(!std::ptr::eq(resolved(value), value));
        match value {
            Value::Array(values) => left.extend(values),
            Value::Object(values) => left.extend(values.values()),
            _ => {}
        }
    }
    assert!(references > 20, "{references}");
}
