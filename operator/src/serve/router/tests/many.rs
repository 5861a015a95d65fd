//! Questions about many assets.

use super::*;

fn question(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/assets").header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

fn about(ids: &[String]) -> Request<Body> {
    question(json!({ "ids": ids }).to_string())
}

#[tokio::test]
async fn ten_thousand_assets_are_answered_as_each_of_them_alone() {
    let rings = moving();
    let routes = routed(&rings);
    let mut ids: Vec<String> = (0..9_998).map(|number| format!("W{number}")).collect();
    ids.extend(["say \"ä\"\n".to_owned(), "W1".to_owned()]);
    let answered = ask(&routes, about(&ids)).await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("cache-control"), "no-store");
    let told = answered.json();
    assert_eq!(told["ring"], json!({"epoch": 9, "phase": "announced"}));
    let assets = told["assets"].as_array().unwrap();
    let named: Vec<&str> = assets.iter().map(|asset| asset["asset_id"].as_str().unwrap()).collect();
    assert!(named == ids, "in the order of the question");
    assert!(assets.iter().any(|asset| !asset["previous"].is_null()));
    for (index, path) in (0..50)
        .map(|n| (n, format!("W{n}")))
        .chain([(9_998, "say%20%22%C3%A4%22%0A".to_owned())])
    {
        let mut alone = get_json(&rings, &format!("/v1/assets/{path}")).await.1;
        let ring = alone.as_object_mut().unwrap().remove("ring").unwrap();
        assert_eq!((&assets[index], &told["ring"]), (&alone, &ring));
    }
    let none = ask(&routes, about(&[])).await.json();
    assert_eq!(none["assets"], json!([]));
    say(&rings, "a", Progress::All(9));
    let settled = ask(&routes, about(&ids)).await.json();
    let previous = settled["assets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asset| &asset["previous"]);
    assert!(previous.into_iter().all(Value::is_null));
}

#[tokio::test]
async fn a_question_of_another_form_is_refused() {
    let routes = routed(&rings(&["a"]));
    let ids = |ids: Vec<String>| json!({ "ids": ids }).to_string();
    for (body, status, said) in [
        (ids(vec!["x".to_owned(); 10_001]), 422, "10000"),
        (ids(vec![String::new()]), 422, "empty"),
        (ids(vec!["x".repeat(513)]), 422, "512"),
        (ids(vec!["x".repeat(300); 10_000]), 413, "limit"),
        (json!({"ids": [1]}).to_string(), 422, "string"),
        (
            json!({"ids": [], "x".repeat(100_000): 1}).to_string(),
            422,
            "target type",
        ),
        (json!({}).to_string(), 422, "ids"),
        ("null".to_owned(), 422, "Asked"),
        ("{".to_owned(), 400, "JSON"),
        (String::new(), 400, "JSON"),
    ] {
        let answered = ask(&routes, question(body)).await;
        let error = answered.error();
        assert_eq!(answered.status, status, "{error}");
        assert!(error.contains(said) && error.len() < 1_000, "{said}: {error}");
    }
    let untyped = Request::post("/v1/assets").body(Body::from(ids(vec![]))).unwrap();
    assert_eq!(ask(&routes, untyped).await.status, 415);
    let of_another = Request::post("/v1/assets?forwarder=plant/b").header("content-type", "application/json");
    let of_another = of_another.body(Body::from(ids(vec![]))).unwrap();
    assert_eq!(ask(&routes, of_another).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_does_not_arrive_is_given_up() {
    let routes = routed(&rings(&["a"]));
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let answered = ask(&routes, question(never)).await;
    assert_eq!(answered.status, 408);
    assert!(answered.error().contains("10 s"));
}

#[tokio::test]
async fn few_large_answers_are_under_way_at_once() {
    let routes = routed(&rings(&["a"]));
    let ids: Vec<String> = (0..1_000).map(|number| format!("W{number}")).collect();
    let mut untaken = Vec::new();
    for _ in 0..super::super::v1::MOST_BULKS {
        let response = routes.clone().oneshot(about(&ids)).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        untaken.push(response);
    }
    let refused = ask(&routes, about(&ids)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    untaken.pop();
    assert_eq!(ask(&routes, about(&ids)).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_names_very_many_urls_is_refused_before_it_begins() {
    let rings = rings(&["a"]);
    let urls: Vec<String> = (0..500)
        .map(|number| format!("nats://server-{number}.plant:4222"))
        .collect();
    let text = json!({"epoch": 7, "clusters": [{"name": "C1", "servers": urls}]});
    see(&rings, &map("a", &text.to_string()));
    let routes = routed(&rings);
    let ids = |count: usize| vec!["x".to_owned(); count];
    let refused = ask(&routes, about(&ids(10_000))).await;
    assert_eq!(refused.status, 413);
    let fits: usize = refused.error().split(' ').find_map(|word| word.parse().ok()).unwrap();
    let answered = ask(&routes, about(&ids(fits))).await;
    assert_eq!(answered.status, 200);
    assert!(
        (60 << 20..=64 << 20).contains(&answered.body.len()),
        "{}",
        answered.body.len()
    );
    assert_eq!(ask(&routes, about(&ids(fits + 1))).await.status, 413);
}
