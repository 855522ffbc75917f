//! Tests of the DNS server over a real socket.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use testkit::{DEADLINE, Dns, Failure, Service};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Sends a query and returns the response; `None` if there is none within `patience`.
async fn ask(dns: &Dns, name: &str, kind: RecordType, patience: Duration) -> Option<Message> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    socket.send_to(&question.to_vec().unwrap(), dns.address()).await.unwrap();
    let mut datagram = [0; 4096];
    let length = timeout(patience, socket.recv(&mut datagram)).await.ok()?.unwrap();
    let answer = Message::from_vec(&datagram[..length]).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (question.metadata.id, &question.queries));
    Some(answer)
}

/// Returns the records of a response as text, or its error code.
async fn records(dns: &Dns, name: &str, kind: RecordType) -> Result<Vec<String>, ResponseCode> {
    let answer = ask(dns, name, kind, DEADLINE).await.unwrap();
    match answer.metadata.response_code {
        ResponseCode::NoError => {
            Ok(answer.answers.iter().map(|it| format!("{} {}", it.ttl, it.data)).collect())
        }
        failed => Err(failed),
    }
}

#[tokio::test]
async fn name_has_the_records_that_the_test_sets() {
    let dns = Dns::start().await;
    assert_eq!(records(&dns, "web.test.", RecordType::A).await, Err(ResponseCode::NXDomain));

    let addresses: [IpAddr; 3] = ["127.0.0.1", "127.0.0.2", "::1"].map(|address| address.parse().unwrap());
    dns.addresses("web.test", 5, &addresses);
    let v4 = records(&dns, "Web.TEST.", RecordType::A).await;
    assert_eq!(v4, Ok(vec!["5 127.0.0.1".to_owned(), "5 127.0.0.2".to_owned()]));
    assert_eq!(records(&dns, "web.test.", RecordType::AAAA).await, Ok(vec!["5 ::1".to_owned()]));
    assert_eq!(records(&dns, "web.test.", RecordType::SRV).await, Ok(vec![]));
    assert_eq!(dns.asked("web.test"), 4);

    dns.addresses("web.test", 1, &addresses[1..2]);
    assert_eq!(records(&dns, "web.test.", RecordType::A).await, Ok(vec!["1 127.0.0.2".to_owned()]));

    let service = Service { priority: 1, weight: 2, port: 3, target: "web.test" };
    dns.services("_http._tcp.test", 4, &[service]);
    let services = records(&dns, "_http._tcp.test.", RecordType::SRV).await;
    assert_eq!(services, Ok(vec!["4 1 2 3 web.test.".to_owned()]));
}

#[tokio::test]
async fn dns_server_fails_on_request() {
    let dns = Dns::start().await;
    dns.fail("web.test", Failure::ServerFailure);
    assert_eq!(records(&dns, "web.test.", RecordType::A).await, Err(ResponseCode::ServFail));
    dns.fail("web.test", Failure::Silence);
    assert!(ask(&dns, "web.test.", RecordType::A, Duration::from_millis(50)).await.is_none());
    dns.fail("web.test", Failure::NotFound);
    assert_eq!(records(&dns, "web.test.", RecordType::A).await, Err(ResponseCode::NXDomain));
}
