//! Checks that the auth server decides, that only it names the user, and that no answer means 503.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ex0413::ForwardAuth;
use parking_lot::Mutex;
use testkit::{Behaviour, Client, Origin, Response, ServedProxy, expect, serve};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Maximum time of the proxy for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Auth server that decides by the cookie `session`, and keeps the heads of all questions.
struct Auth {
    address: SocketAddr,
    questions: Arc<Mutex<Vec<String>>>,
}

impl Auth {
    async fn start() -> Auth {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, questions) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let kept = questions.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, kept.clone()));
            }
        });
        Auth { address, questions }
    }

    /// Returns the values of a field in the last question.
    fn asked(&self, name: &str) -> Vec<String> {
        let questions = self.questions.lock();
        let lines = questions.last().map_or("", String::as_str).lines();
        let fields = lines.filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).collect()
    }
}

async fn answer(stream: TcpStream, questions: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    // Names of fields in lower case; values are as they came.
    let lines = head.lines().map(|line| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
        None => format!("{line}\n"),
    });
    let head: String = lines.collect();
    questions.lock().push(head.clone());
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    let is_from = |session: &str| head.contains(&format!("session={session}"));
    let answer = match () {
        () if is_from("ada") => "204 No\r\nX-Auth-User: ada\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
        () if is_from("guest") => "200 OK\r\nContent-Length: 0\r\n",
        () if is_from("banned") => "403 No\r\nContent-Length: 0\r\n",
        () if is_from("error") => "500 No\r\nX-Auth-User: ada\r\nContent-Length: 0\r\n",
        () if is_from("moved") => "302 No\r\nLocation: /login\r\nContent-Length: 0\r\n",
        () if is_from("slow") => std::future::pending().await,
        () => "401 No\r\nWWW-Authenticate: Cookie\r\nSet-Cookie: try=1\r\nContent-Length: 0\r\n",
    };
    stream.write_all(format!("HTTP/1.1 {answer}\r\n").as_bytes()).await
}

/// Auth server, upstream and the proxy between them.
async fn setup() -> (Auth, Origin, ServedProxy) {
    let (auth, origin) = (Auth::start().await, Origin::start().await);
    let proxy = serve(ForwardAuth::new(origin.address(), auth.address, PATIENCE));
    (auth, origin, proxy)
}

async fn ask(proxy: &ServedProxy, session: &str, fields: &[(&str, &str)]) -> Result<Response, String> {
    let mut request = http::Request::get(proxy.url("/anything/orders?page=2"))
        .header("Cookie", format!("session={session}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Client::new().try_send(request.body(Bytes::new()).unwrap()).await
}

fn status(answer: &Result<Response, String>) -> Result<u16, String> {
    answer.as_ref().map(|answer| answer.status.as_u16()).map_err(Clone::clone)
}

fn values(headers: &http::HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_answer_decides() {
    let (_auth, origin, proxy) = setup().await;
    for (session, expected) in [("ada", 200), ("guest", 200), ("", 401), ("banned", 403)] {
        let answer = ask(&proxy, session, &[]).await;
        expect!(status(&answer), Ok(expected), "the status for the session {session:?}");
    }
    expect!(origin.received().len(), 2, "how many of four requests the upstream got, two of which may pass");
    let refused = ask(&proxy, "", &[]).await.unwrap();
    expect!(refused.header("www-authenticate"), "Cookie", "WWW-Authenticate of the 401");
    expect!(values(&refused.headers, "set-cookie"), ["try=1"], "Set-Cookie of the 401");
}

#[tokio::test]
async fn the_question_has_what_the_auth_server_needs() {
    let (auth, _origin, proxy) = setup().await;
    let fields = [("Authorization", "Bearer x"), ("X-Secret", "s"), ("Cookie", "session=ada")];
    let answer = ask(&proxy, "other", &fields).await;
    expect!(status(&answer), Ok(200), "the status, when the session is in the second Cookie field");
    for (name, expected) in [
        ("x-forwarded-uri", &["/anything/orders?page=2"][..]),
        ("x-forwarded-method", &["GET"]),
        ("authorization", &["Bearer x"]),
        ("cookie", &["session=other", "session=ada"]),
    ] {
        expect!(auth.asked(name), expected, "the field {name} of the question");
    }
    let request =
        http::Request::post(proxy.url("/anything")).header("Cookie", "session=ada").body("hello".into());
    let answer = Client::new().try_send(request.unwrap()).await;
    expect!(status(&answer), Ok(200), "the status of a POST with a body");
    expect!(auth.asked("content-length"), [""; 0], "Content-Length of the question about a POST");
    expect!(auth.asked("x-forwarded-method"), ["POST"], "the method in the question about a POST");
}

#[tokio::test]
async fn only_the_auth_server_names_the_user() {
    let (_auth, origin, proxy) = setup().await;
    for (session, user) in [("ada", &["ada"][..]), ("guest", &[])] {
        for fields in
            [&[][..], &[("X-Auth-User", "root")], &[("x_auth_user", "root"), ("X-AUTH-USER", "admin")]]
        {
            origin.forget();
            let answer = ask(&proxy, session, fields).await;
            expect!(status(&answer), Ok(200), "the status for the session {session}");
            let received = origin.received();
            let got = values(&received[0].headers, "x-auth-user");
            expect!(got, user, "the user at the upstream, for the session {session} with {fields:?}");
            let twin = values(&received[0].headers, "x_auth_user");
            expect!(
                twin,
                [""; 0],
                "the field x_auth_user at the upstream, for a client that sends {fields:?}"
            );
        }
    }
}

#[tokio::test]
async fn no_decision_means_503() {
    let (_auth, origin, proxy) = setup().await;
    for session in ["error", "moved", "slow"] {
        let started = Instant::now();
        let answer = ask(&proxy, session, &[]).await;
        expect!(status(&answer), Ok(503), "the status when the auth server's answer is: {session}");
        let in_time = started.elapsed() < 2 * PATIENCE;
        expect!(in_time, true, "whether that 503 came within {:?}", 2 * PATIENCE);
    }
    let proxy = serve(ForwardAuth::new(origin.address(), testkit::dead_address(), PATIENCE));
    expect!(status(&ask(&proxy, "ada", &[]).await), Ok(503), "the status when the auth server is down");
    expect!(origin.received().len(), 0, "how many of these requests the upstream got");
}

#[tokio::test]
async fn cookies_of_both_servers_reach_the_client() {
    let (_auth, origin, proxy) = setup().await;
    origin.behave(Behaviour::Header("set-cookie", "theme=dark"));
    for (session, expected) in [("ada", &["a=1", "b=2", "theme=dark"][..]), ("guest", &["theme=dark"])] {
        let answer = ask(&proxy, session, &[]).await;
        let answer = answer.map(|answer| {
            let mut cookies = values(&answer.headers, "set-cookie");
            cookies.sort();
            cookies
        });
        expect!(
            answer,
            Ok(expected.iter().map(|value| (*value).to_owned()).collect()),
            "the cookies that the session {session} gets"
        );
    }
}
