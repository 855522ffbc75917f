//! Many guesses of passwords at once: their cost for the gateway, and their effect on other clients that log in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{eventually, exchange, exchange_from};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{PASSWORD, Scene, basic, field, status};

/// Starts a gateway with these users, whose bcrypt hashes have the cost `cost` (2^`cost` rounds). No other
/// scene has the first user.
async fn scene(names: &[&str], cost: u32) -> Scene {
    let scene = Scene::start().await;
    let hash = bcrypt::hash_with_salt(PASSWORD, cost, [7; 16]).unwrap();
    let hash = hash.format_for_version(bcrypt::Version::TwoY);
    let lines: Vec<String> = names.iter().map(|name| format!("{name}:{hash}\n")).collect();
    std::fs::write(scene.file("users"), lines.concat()).unwrap();
    eventually!(status(&scene.ask("/basic", &basic(&format!("{}:{PASSWORD}", names[0]))).await) == 404);
    scene
}

fn head(pair: &str) -> String {
    format!("GET /basic HTTP/1.1\r\nHost: shop.test\r\n{}Connection: close\r\n\r\n", basic(pair))
}

/// The gateway checks some guesses and refuses the rest with a request to retry. A client that has logged in
/// before passes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guesses_are_bounded_and_do_not_delay_known_users() {
    let scene = scene(&["carol", "alice"], 8).await;
    let guesses = (0..200).map(|n| {
        let address = scene.gateway.address;
        tokio::spawn(async move { exchange(address, head(&format!("alice:guess-{n}")).as_bytes()).await })
    });
    let guesses: Vec<_> = guesses.collect();
    for _ in 0..10 {
        assert_eq!(status(&scene.ask("/basic", &basic(&format!("carol:{PASSWORD}"))).await), 404);
    }
    let mut turned_away = 0;
    for guess in guesses {
        let answer = guess.await.unwrap();
        match status(&answer) {
            401 => {}
            429 if field(&answer, "retry-after") == "2" => turned_away += 1,
            other => panic!("{other}: {answer}"),
        }
    }
    assert!(turned_away > 0, "all of them were checked");
    let series = "proxy_auth_failures_total{reason=\"rate_limited\",route=\"/basic\",vhost=\"shop.test\"}";
    assert_eq!(scene.gateway.metric(series).await, f64::from(turned_away));
}

/// Sends guesses until `ends` is set.
async fn guess_on(from: IpAddr, address: SocketAddr, number: usize, ends: Arc<AtomicBool>) {
    let mut guess = 0;
    while !ends.load(Ordering::Relaxed) {
        guess += 1;
        exchange_from(from, address, head(&format!("alice:{number}-{guess}")).as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_one_address_do_not_block_other_logins() {
    let names = ["bob", "alice", "carol", "dave", "eve"];
    let scene = scene(&names, 7).await;
    let (ends, address) = (Arc::<AtomicBool>::default(), scene.gateway.address);
    let guessers: Vec<_> = (0..50)
        .map(|number| tokio::spawn(guess_on([127, 0, 0, 2].into(), address, number, ends.clone())))
        .collect();
    scene.gateway.process.line("error=\"rate_limited\"").await;
    for name in &names[1..] {
        let answer = scene.ask("/basic", &basic(&format!("{name}:{PASSWORD}"))).await;
        assert_eq!(status(&answer), 404, "{name} is let in: {answer}");
    }
    ends.store(true, Ordering::Relaxed);
    for guesser in guessers {
        guesser.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_client_leaves_the_hash_queue() {
    let scene = scene(&["bob"], 10).await;
    let address = scene.gateway.address;
    // Keeps the processors that hash passwords busy.
    let busy: Vec<_> = (0..16)
        .map(|n: u8| {
            let from = IpAddr::from([127, 0, 1, n]);
            tokio::spawn(async move { exchange_from(from, address, head("bob:busy").as_bytes()).await })
        })
        .collect();
    eventually!(scene.gateway.metric("proxy_requests_active").await >= 8.0);
    for n in 0..5 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(head(&format!("bob:left-{n}")).as_bytes()).await.unwrap();
    }
    scene.gateway.process.line("GET /basic 499 ").await;
    for guess in busy {
        guess.await.unwrap();
    }
}
