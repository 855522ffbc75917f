//! Passwords that are guessed, many at once: what that costs the gateway, and whom it keeps from logging in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{eventually, exchange, exchange_from};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{PASSWORD, Scene, basic, field, status};

/// A scene with these users, the first of whom is in no other scene, whose hashes cost 2^`cost` rounds.
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

/// Some are checked, the rest are told to come again, and whoever has proved it before is let through all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_are_bounded_and_who_is_known_is_not_held_up() {
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

/// Guesses without an end.
async fn guess_on(from: IpAddr, address: SocketAddr, number: usize, ends: Arc<AtomicBool>) {
    let mut guess = 0;
    while !ends.load(Ordering::Relaxed) {
        guess += 1;
        exchange_from(from, address, head(&format!("alice:{number}-{guess}")).as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_guesses_keeps_nobody_else_from_logging_in() {
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
async fn who_has_left_waits_for_nothing() {
    let scene = scene(&["bob"], 10).await;
    let address = scene.gateway.address;
    // Keeps the processors busy that hash.
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
