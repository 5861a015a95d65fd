//! An API server for unit tests: whatever it is asked, a function answers.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;

use crate::context::{Context, Scope, Settings};
use crate::metrics::Metrics;
use crate::reconcile::events::Events;

/// A client whose requests `answer` answers, by an HTTP code and a body.
pub(crate) fn client(answer: impl Fn(&Parts, &[u8]) -> (u16, String) + Clone + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (code, text) = answer(&parts, &body);
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Client::new(service, "default")
}

/// What reconciles are given, with this API server.
pub(crate) fn context(client: Client) -> Arc<Context> {
    let settings = Settings {
        forwarder_image: String::new(),
        forwarder_image_pull_policy: "Never",
        require_secret_opt_in: false,
        pod_security_ids: true,
        namespace: String::new(),
        concurrency: 1,
    };
    let events = Events::new(client.clone(), "operator".to_owned());
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Context::new(
        client.clone(),
        client,
        Scope::Cluster,
        settings,
        events,
        metrics,
        Arc::default(),
    ))
}
