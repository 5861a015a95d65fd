//! Rings that are followed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::super::v1::MOST_WATCHERS;
use super::*;

/// An event that never comes fails a test after so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// A watch that is read.
struct Watch {
    body: Body,
    /// Of the last event that had one.
    id: String,
}

impl Watch {
    /// Watches `a`; `known`: the ID of the last event.
    async fn of(routes: &Router, known: Option<&str>) -> Self {
        let request = Request::get("/v1/watch?forwarder=plant/a");
        let request = known
            .into_iter()
            .fold(request, |request, id| request.header("last-event-id", id));
        let request = request.body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            id: String::new(),
        }
    }

    /// The text of the next event or comment; none: the watch is over.
    async fn text(&mut self) -> Option<String> {
        let frame = timeout(PATIENCE, self.body.frame()).await.unwrap()?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }

    /// The next event, and its data.
    async fn next(&mut self) -> (String, Value) {
        let text = self.text().await.unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(id) = field("id:") {
            self.id = id.to_owned();
        }
        let data = serde_json::from_str(field("data:").unwrap()).unwrap();
        (field("event:").unwrap().to_owned(), data)
    }

    /// The epoch and phase of the next event, which is about a ring.
    async fn ring(&mut self) -> (u64, String) {
        let (event, data) = self.next().await;
        assert_eq!(event, "ring");
        (
            data["epoch"].as_u64().unwrap(),
            data["phase"].as_str().unwrap().to_owned(),
        )
    }

    async fn is_over(&mut self) -> bool {
        self.text().await.is_none()
    }
}

/// The routes, and what stops them.
fn served(rings: &Arc<Rings>) -> (Router, shutdown::Trigger) {
    let (trigger, stop) = shutdown::channel();
    (routes(Arc::clone(rings), stop), trigger)
}

#[tokio::test]
async fn a_watcher_is_told_of_each_step_of_a_change() {
    let rings = moving();
    let (routes, _trigger) = served(&rings);
    let mut watch = Watch::of(&routes, None).await;
    let member = |name: &str| {
        let urls = [format!("nats://{name}:4222")];
        json!({"cluster_name": name, "nats_urls": urls, "client_urls": urls, "weight": 1})
    };
    let (event, data) = watch.next().await;
    assert_eq!(event, "ring");
    let told = json!({
        "forwarder": "plant/a", "uid": uid("a"), "phase": "announced", "epoch": 9, "replicas": 128,
        "members": (["C1", "C2", "C3", "C4"].map(member)),
        "previous": {"epoch": 8, "replicas": 128, "members": (["C1", "C2", "C3"].map(member))},
    });
    assert_eq!(data, told);
    assert!(watch.id.starts_with("9-"), "{}", watch.id);
    say(&rings, "a", Progress::All(9));
    let (_, data) = watch.next().await;
    assert_eq!((&data["phase"], &data["previous"]), (&json!("inUse"), &Value::Null));
    let mut idle = map("a", RING);
    idle.metadata.annotations = Some(BTreeMap::from([(IDLE.to_owned(), "true".to_owned())]));
    see(&rings, &idle);
    let about = json!({"forwarder": "plant/a", "uid": uid("a")});
    assert_eq!(watch.next().await, ("idle".to_owned(), about.clone()));
    write(&rings, "a", 10, &["C1"]);
    assert_eq!(watch.ring().await, (10, "inUse".to_owned()));
    rings.forwarder_gone(&key("a"));
    assert_eq!(watch.next().await, ("gone".to_owned(), about));
    assert!(watch.is_over().await);
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_event() {
    let rings = rings(&["a"]);
    let (routes, _trigger) = served(&rings);
    let mut first = Watch::of(&routes, None).await;
    assert_eq!(first.ring().await, (7, "inUse".to_owned()));
    let mut again = Watch::of(&routes, Some(&first.id)).await;
    write(&rings, "a", 8, &["C1", "C2"]);
    say(&rings, "a", Progress::All(8));
    assert_eq!(again.ring().await, (8, "inUse".to_owned()), "7 is not told again");
    for unknown in [&first.id, "", "8-0", "\u{7f}x"].map(|id| id.replace('\u{7f}', "")) {
        let mut other = Watch::of(&routes, Some(&unknown)).await;
        assert_eq!(other.ring().await.0, 8, "{unknown}");
    }
}

#[tokio::test]
async fn a_slow_reader_sees_the_newest_state_alone() {
    let rings = rings(&["a"]);
    let (routes, _trigger) = served(&rings);
    let mut watch = Watch::of(&routes, None).await;
    watch.ring().await;
    for epoch in 8..1_000 {
        write(&rings, "a", epoch, &["C1", "C2"]);
        say(&rings, "a", Progress::All(epoch));
    }
    assert_eq!(watch.ring().await, (999, "inUse".to_owned()));
    rings.forwarder_gone(&key("a"));
    assert_eq!(watch.next().await.0, "gone", "nothing was queued");
}

#[tokio::test]
async fn a_forwarder_made_anew_is_another_one() {
    let rings = rings(&["a"]);
    let (routes, _trigger) = served(&rings);
    let mut watch = Watch::of(&routes, None).await;
    watch.ring().await;
    rings.forwarder_gone(&key("a"));
    rings.forwarder_seen(key("a"), "another".to_owned(), Progress::Unsaid);
    assert_eq!(watch.next().await.0, "gone");
    assert!(watch.is_over().await);
    let mut anew = Watch::of(&routes, Some(&watch.id)).await;
    let mut map = map("a", RING);
    own(&mut map, "AssetForwarder", "a", "another");
    see(&rings, &map);
    assert_eq!(anew.next().await.1["uid"], "another", "it waits for its ring");
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let (routes, trigger) = served(&rings(&["a"]));
    let mut watch = Watch::of(&routes, None).await;
    watch.ring().await;
    // The watch waits already when the stop comes.
    let (is_over, ()) = futures::future::join(watch.is_over(), async { trigger.stop() }).await;
    assert!(is_over);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_kept_open_and_ends_before_the_server_cuts_it() {
    let (routes, _trigger) = served(&rings(&["a"]));
    let mut watch = Watch::of(&routes, None).await;
    watch.ring().await;
    let begin = tokio::time::Instant::now();
    let mut comments = 0;
    while let Some(text) = watch.text().await {
        assert!(text.starts_with(':'), "{text}");
        comments += 1;
    }
    let took = begin.elapsed();
    assert!(
        took < super::super::PATIENCE && took > super::super::PATIENCE / 2,
        "{took:?}"
    );
    assert!(comments >= took.as_secs() / 15 - 1, "{comments}");
}

#[tokio::test]
async fn watchers_are_bounded_and_what_cannot_be_watched_is_refused() {
    let rings = rings(&["a"]);
    let (routes, _trigger) = served(&rings);
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let mut watches = Vec::new();
    for _ in 0..MOST_WATCHERS {
        watches.push(Watch::of(&routes, None).await);
    }
    let refused = ask(&routes, get("/v1/watch")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    watches.pop();
    let mut watch = Watch::of(&routes, None).await;
    watch.ring().await;
    watches.clear();

    let urls: Vec<String> = (0..5_000)
        .map(|number| format!("nats://server-{number}.plant:4222"))
        .collect();
    let text = json!({"epoch": 8, "clusters": [{"name": "C1", "servers": urls}]});
    see(&rings, &map("a", &text.to_string()));
    assert!(watch.is_over().await, "the ring has grown too large");
    let refused = ask(&routes, get("/v1/watch")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.error().contains("too large to be watched"),
        "{}",
        refused.error()
    );
    for (path, status) in [
        ("/v1/watch?forwarder=plant/b", 404),
        ("/v1/watch?forwarder=b", 400),
        ("/v1/watch?forwarder=plant/a&forwarder=plant/a", 400),
    ] {
        assert_eq!(ask(&routes, get(path)).await.status, status, "{path}");
    }
}
