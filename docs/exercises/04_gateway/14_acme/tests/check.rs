//! Checks that a certificate authority gets the answers to its challenges, and nothing else.

use ex0414::{AccountKey, Challenges, PlainHttp, WELL_KNOWN, key_authorization};
use testkit::{ServedProxy, exchange, expect, serve};

/// Token of a challenge, in the form that authorities use.
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

/// Thumbprint of the key of [`account`], computed by another program.
const THUMBPRINT: &str = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U";

fn account() -> AccountKey {
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    AccountKey { x: x.to_owned(), y: y.to_owned() }
}

/// Site with one challenge in its table.
fn site() -> (ServedProxy, Challenges) {
    let challenges = Challenges::default();
    challenges.offer(TOKEN, &account());
    (serve(PlainHttp { domain: "shop.example", challenges: challenges.clone() }), challenges)
}

async fn get(site: &ServedProxy, target: &str) -> (String, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    let answer = exchange(site.address(), request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

fn status(head: &str) -> &str {
    head.get(9..12).unwrap_or("none")
}

/// Validates a challenge as a certificate authority does (RFC 8555, 8.3). It follows no redirect, since the site
/// has no certificate yet.
async fn validate(site: &ServedProxy, token: &str) -> Result<(), String> {
    let (head, body) = get(site, &format!("{WELL_KNOWN}{token}")).await;
    let expected = format!("{token}.{THUMBPRINT}");
    match status(&head) {
        "200" if body.trim_end() == expected => Ok(()),
        "200" => Err(format!("the body is {body:?}, not {expected:?}")),
        status => Err(format!("the status is {status}")),
    }
}

#[test]
fn key_authorization_is_token_and_thumbprint() {
    let expected = format!("abc.{THUMBPRINT}");
    expect!(key_authorization("abc", &account()), expected, "the key authorization for the token abc");
}

#[tokio::test]
async fn the_authority_validates_the_challenge() {
    let (site, _challenges) = site();
    expect!(validate(&site, TOKEN).await, Ok(()), "what the authority says about the challenge");
    let (head, body) = get(&site, &format!("{WELL_KNOWN}{TOKEN}")).await;
    let length = format!("content-length: {}", body.len());
    expect!(head.to_ascii_lowercase(), contains length, "Content-Length of the answer to a challenge");
}

#[tokio::test]
async fn tokens_outside_the_table_get_404() {
    let (site, challenges) = site();
    let lower = TOKEN.to_ascii_lowercase();
    for token in ["another", &TOKEN[..10], &format!("{TOKEN}x"), &format!("x/{TOKEN}"), &lower, ""] {
        let (head, body) = get(&site, &format!("{WELL_KNOWN}{token}")).await;
        expect!(status(&head), "404", "the status for the token {token:?}, which is not in the table");
        let tells = body.contains(THUMBPRINT);
        expect!(tells, false, "whether the answer for the token {token:?} has the account's thumbprint");
    }
    challenges.withdraw(TOKEN);
    let (head, _) = get(&site, &format!("{WELL_KNOWN}{TOKEN}")).await;
    expect!(status(&head), "404", "the status for a token that is no longer in the table");
    challenges.offer("second", &account());
    expect!(
        validate(&site, "second").await,
        Ok(()),
        "what the authority says about a challenge that came later"
    );
}

#[tokio::test]
async fn all_other_requests_are_sent_to_https() {
    let (site, _challenges) = site();
    for target in ["/", "/orders?page=2", "/.well-known/security.txt", &format!("/x{WELL_KNOWN}{TOKEN}")] {
        let (head, _) = get(&site, target).await;
        expect!(status(&head), "308", "the status of GET {target}");
        let location = format!("location: https://shop.example{target}").to_ascii_lowercase();
        expect!(head.to_ascii_lowercase(), contains location, "Location of the redirect of GET {target}");
    }
}
