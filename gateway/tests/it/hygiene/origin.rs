//! An origin that parses requests by hand and records every byte.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request, as far as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) head: String,
    pub(super) body: String,
    /// True if the request arrived completely.
    pub(super) is_whole: bool,
}

impl Seen {
    fn fields<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(move |(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Returns a description of an ambiguity: a place that two readers could interpret in two ways.
    pub(super) fn ambiguity(&self) -> Option<&'static str> {
        let lengths: Vec<_> = self.fields("content-length").collect();
        let codings: Vec<_> = self.fields("transfer-encoding").collect();
        let without_ends = self.head.replace("\r\n", "");
        let names = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let mut names = names.map(|(name, _)| name);
        let faults = [
            (self.fields("host").count() != 1, "not one Host"),
            (lengths.len() + codings.len() > 1, "framed in several ways"),
            (codings.iter().any(|coding| *coding != "chunked"), "another coding"),
            (lengths.iter().any(|length| length.parse::<u64>().is_err()), "a length that is no number"),
            (lengths.iter().any(|length| length.len() > 1 && length.starts_with('0')), "a length in octal"),
            (self.fields("upgrade").count() > 0, "a switch that nobody has asked for"),
            (without_ends.contains(['\r', '\n', '\0']), "a bare CR or LF, or a NUL"),
            (names.any(|name| name.is_empty() || name.contains([' ', '\t'])), "a name that is none"),
            (
                self.fields("expect").any(|value| !value.eq_ignore_ascii_case("100-continue")),
                "an unknown expectation",
            ),
        ];
        faults.into_iter().find_map(|(is, what)| is.then_some(what))
    }
}

/// An origin that records the requests it gets.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(super) async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let record = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let record = record.clone();
                tokio::spawn(async move { while_it_lasts(stream, &record).await });
            }
        });
        Recorder { address, seen }
    }

    /// Returns the requests for `target`, as a path or within a URL.
    pub(super) fn seen(&self, target: &str) -> Vec<Seen> {
        let is_for = |seen: &&Seen| {
            let path = seen.target.split(['?', '|']).next().unwrap_or_default();
            path == target || path.strip_suffix(target).is_some_and(|it| it.starts_with("http"))
        };
        self.seen.lock().iter().filter(is_for).cloned().collect()
    }

    /// Returns the requests whose target does not contain `prefix`.
    pub(super) fn outside(&self, prefix: &str) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| !seen.target.contains(prefix)).cloned().collect()
    }
}

async fn while_it_lasts(stream: TcpStream, record: &Mutex<Vec<Seen>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut line = head.split("\r\n").next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let mut seen = Seen {
            method: line.next().unwrap_or_default(),
            target: line.next().unwrap_or_default(),
            head: head.clone(),
            body: String::new(),
            is_whole: false,
        };
        let index = {
            let mut all = record.lock();
            all.push(seen.clone());
            all.len() - 1
        };
        let is_chunked = seen.fields("transfer-encoding").next().is_some();
        let length = seen.fields("content-length").next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let body = if is_chunked { chunked(&mut stream).await } else { exactly(&mut stream, length).await };
        let Some(body) = body else { return };
        (seen.body, seen.is_whole) = (String::from_utf8_lossy(&body).into_owned(), true);
        let answer = format!("saw {}\n", seen.target);
        record.lock()[index] = seen;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn exactly(stream: &mut BufReader<TcpStream>, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

async fn chunked(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let size = usize::from_str_radix(line.strip_suffix("\r\n")?, 16).ok()?;
        body.extend(exactly(stream, size).await?);
        if exactly(stream, 2).await? != b"\r\n" {
            return None;
        }
        if size == 0 {
            return Some(body);
        }
    }
}
