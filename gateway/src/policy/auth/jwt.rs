//! Authentication by a signed token (JWT, RFC 7519) that the client sends as bearer token (RFC 6750). As RFC
//! 8725 demands, the key and the configuration decide which algorithms are accepted, and a key in the token is
//! never used. The claims are used only after the signature has been verified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Header, Validation, get_current_timestamp};
use serde_json::{Map, Value};

use super::cache::{Cache, Digest};
use super::challenge::{Challenge, quoted, unavailable};
use super::identity::{as_text, find};
use super::jwks::KeySet;
use super::keys::{self, Key};
use super::{Checked, Credentials, Identity, authorization};
use crate::config;
use crate::reply::{Reply, Verdict};

/// Maximum length of a token, in bytes. A token has to fit into a header field.
const MAX_LENGTH: usize = 16 * 1024;
/// Default tolerance for differences between the gateway's clock and the issuer's clock, in seconds.
const LEEWAY_SECS: u16 = 30;
/// Maximum number of keys that are tried for a token that does not name its key.
const MAX_TRIED: usize = 8;

/// Source of the keys that verify tokens.
pub(super) enum VerificationKeys {
    /// Keys from a file, or a shared secret.
    Fixed(Arc<[Key]>),
    /// Keys that the issuer publishes.
    Set(Arc<KeySet>),
}

/// Compiled `[auth]` table of the kind `jwt`.
pub(super) struct Jwt {
    keys: VerificationKeys,
    /// Validation rules, one for each family of accepted algorithms.
    rules: Vec<(AlgorithmFamily, Validation)>,
    forward: Vec<(String, HeaderName)>,
    require: Vec<(String, Vec<String>)>,
    challenge: Challenge,
    /// Cache of verified tokens. `None` if the system has no random bytes for the cache's key; each token is
    /// then verified again.
    cache: Option<Cache<Proved>>,
}

/// Cached result for a verified token. The result is valid until the token expires or the keys change.
#[derive(Clone)]
struct Proved {
    identity: Arc<Identity>,
    keys: Arc<[Key]>,
    /// Time at which the result expires, in seconds since 1970; includes the tolerance.
    until: u64,
}

impl Jwt {
    pub(super) fn new(config: &config::Auth, keys: VerificationKeys) -> Self {
        use AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
        let listed: Vec<Algorithm> = config.algorithms.iter().map(|named| keys::algorithm(*named)).collect();
        let families =
            if matches!(keys, VerificationKeys::Set(_)) { &[Rsa, Ec, Ed][..] } else { &[Hmac, Rsa, Ec, Ed] };
        let rules = families.iter().filter_map(|family| {
            let mut algorithms = family.algorithms().to_vec();
            algorithms.retain(|algorithm| listed.is_empty() || listed.contains(algorithm));
            (!algorithms.is_empty()).then(|| (*family, validation(config, algorithms)))
        });
        let require = config.require.iter().map(|(claim, values)| (claim.clone(), values.0.clone()));
        Jwt {
            rules: rules.collect(),
            forward: forward(&config.forward_claims),
            require: require.collect(),
            challenge: Challenge::new("Bearer", &config.realm, ""),
            keys,
            cache: Cache::new().ok(),
        }
    }

    /// Returns the identity of the client, or the refusal. With keys that the issuer publishes, the caller may
    /// have to wait for a fetch.
    pub(super) fn check(&self, headers: &HeaderMap) -> Checked<'_> {
        let token = match authorization(headers, "Bearer") {
            Credentials::One(token) => token,
            Credentials::None => {
                return Checked::refused(self.challenge.missing("the request has no bearer token"));
            }
            Credentials::Several => {
                return Checked::refused(self.challenge.several("there are several Authorization fields"));
            }
        };
        if token.len() > MAX_LENGTH {
            return Checked::refused(self.challenge.invalid("the token is too long"));
        }
        let digest = self.cache.as_ref().and_then(|cache| cache.digest(token));
        if let Some(identity) = digest.as_ref().and_then(|digest| self.proved(digest)) {
            return Checked::AtOnce(Verdict::Continue(identity));
        }
        match &self.keys {
            VerificationKeys::Fixed(keys) => {
                Checked::AtOnce(self.verdict(self.verify(token, keys.clone()), digest))
            }
            VerificationKeys::Set(set) => {
                let token = token.to_vec();
                Checked::Later(Box::pin(async move {
                    let verified = match keys_for(set, &token).await {
                        Ok(keys) => self.verify(&token, keys),
                        Err(fault) => Err(fault),
                    };
                    self.verdict(verified, digest)
                }))
            }
        }
    }

    fn verdict(
        &self,
        verified: Result<Proved, TokenFault>,
        digest: Option<Digest>,
    ) -> Verdict<Arc<Identity>> {
        match verified {
            Ok(proved) => {
                if let (Some(cache), Some(digest)) = (&self.cache, digest) {
                    cache.keep(digest, proved.clone(), Instant::now());
                }
                Verdict::Continue(proved.identity)
            }
            Err(TokenFault::Token(detail)) => Verdict::Reply(self.challenge.invalid(detail)),
            Err(TokenFault::Refused(reply)) => Verdict::Reply(*reply),
        }
    }

    /// Returns the owner of a token that is in the cache, if the cached result is still valid.
    fn proved(&self, digest: &Digest) -> Option<Arc<Identity>> {
        let proved = self.cache.as_ref()?.find(digest, Instant::now())?;
        let keys = match &self.keys {
            VerificationKeys::Fixed(keys) => keys.clone(),
            VerificationKeys::Set(set) => set.known()?,
        };
        let holds = Arc::ptr_eq(&keys, &proved.keys) && get_current_timestamp() <= proved.until;
        holds.then_some(proved.identity)
    }

    fn verify(&self, token: &[u8], keys: Arc<[Key]>) -> Result<Proved, TokenFault> {
        let header = header_of(token)?;
        let claims = self.verify_with(token, &header, &keys)?;
        self.check_required(&claims)?;
        let mut fields = Vec::with_capacity(self.forward.len());
        for (claim, name) in &self.forward {
            if let Some(value) = find(&claims, claim).map(field_value).transpose()?.flatten() {
                fields.push((name.clone(), value));
            }
        }
        // The verification has already refused an `exp` that is not a number.
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default() as u64;
        let leeway = self.rules.first().map_or(0, |(_, rule)| rule.leeway);
        let until = expires.saturating_add(leeway);
        Ok(Proved { identity: Arc::new(Identity::bearer(claims, fields)), keys, until })
    }

    fn verify_with(
        &self,
        token: &[u8],
        header: &Header,
        keys: &[Key],
    ) -> Result<Map<String, Value>, TokenFault> {
        let family = header.alg.family();
        let rule = self.rules.iter().find(|(known, _)| *known == family).map(|(_, rule)| rule);
        let Some(rule) = rule.filter(|rule| rule.algorithms.contains(&header.alg)) else {
            return Err(TokenFault::Token("the token's algorithm is not accepted here"));
        };
        let is_meant = |key: &&Key| {
            let is_named = header.kid.as_deref().is_none_or(|kid| key.is_called(kid));
            is_named && key.algorithms.contains(&header.alg)
        };
        let mut fault = TokenFault::Token("the token is not signed with a key that is accepted here");
        for key in keys.iter().filter(is_meant).take(MAX_TRIED) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, rule) {
                Ok(verified) => {
                    check_claims(&verified.claims, rule)?;
                    return Ok(verified.claims);
                }
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                // The signature is valid, or the fault does not depend on the key.
                Err(error) => fault = TokenFault::Token(in_words(error.kind())),
            }
        }
        Err(fault)
    }

    /// Checks the required claims. The refusal may name the required scope, because the scope is not a secret.
    fn check_required(&self, claims: &Map<String, Value>) -> Result<(), TokenFault> {
        for (claim, wanted) in &self.require {
            let is_wanted = |text: &str| wanted.iter().any(|wanted| wanted == text);
            let is_there = match find(claims, claim) {
                // The scope is a list of words, separated by spaces (RFC 8693 4.2).
                Some(Value::String(scope)) if claim == "scope" => scope.split(' ').any(is_wanted),
                Some(Value::Array(items)) => items.iter().filter_map(as_text).any(|item| is_wanted(&item)),
                Some(value) => as_text(value).is_some_and(|text| is_wanted(&text)),
                None => false,
            };
            if !is_there {
                let scope = if claim == "scope" {
                    format!(", scope={}", quoted(&wanted.join(" ")))
                } else {
                    String::new()
                };
                let detail = "the token is valid, but lacks a claim that is required here";
                return Err(TokenFault::Refused(Box::new(self.challenge.not_allowed(detail, &scope))));
            }
        }
        Ok(())
    }
}

fn header_of(token: &[u8]) -> Result<Header, TokenFault> {
    let header =
        jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Token("this is not a valid token"))?;
    check_header(&header)?;
    Ok(header)
}

/// Returns the issuer's keys, including the key that `token` names if the issuer publishes that key.
async fn keys_for(set: &KeySet, token: &[u8]) -> Result<Arc<[Key]>, TokenFault> {
    let header = header_of(token)?;
    let fetched = set.keys_for(header.kid.as_deref()).await;
    fetched.ok_or_else(|| TokenFault::Refused(Box::new(unavailable("the issuer's keys are not available"))))
}

/// Reason why a token is refused.
enum TokenFault {
    Token(&'static str),
    Refused(Box<Reply>),
}

fn validation(config: &config::Auth, algorithms: Vec<Algorithm>) -> Validation {
    let leeway = config.leeway_secs.unwrap_or(LEEWAY_SECS).into();
    let mut rule = Validation { algorithms, leeway, validate_nbf: true, ..Validation::default() };
    let mut required = vec!["exp"];
    if !config.issuer.0.is_empty() {
        rule.set_issuer(&config.issuer.0);
        required.push("iss");
    }
    if !config.audience.0.is_empty() {
        rule.set_audience(&config.audience.0);
        required.push("aud");
    }
    rule.set_required_spec_claims(&required);
    rule
}

fn forward(claims: &BTreeMap<String, config::FieldName>) -> Vec<(String, HeaderName)> {
    claims.iter().map(|(claim, name)| (claim.clone(), name.0.clone())).collect()
}

/// Refuses a token whose header changes how the token must be read. If the header contains a key or the address
/// of a key (`jwk`, `jku`, `x5u`, `x5c`), this part is ignored.
fn check_header(header: &Header) -> Result<(), TokenFault> {
    let is_access_token = |kind: &str| {
        let kind = kind.to_ascii_lowercase();
        matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
    };
    if header.crit.is_some() || header.extras.inner().contains_key("b64") {
        // RFC 7515 4.1.11: a critical extension that is not understood makes a token invalid. RFC 7797 7
        // requires the same for `b64`.
        return Err(TokenFault::Token("the token has a critical extension, which is not supported here"));
    }
    if header.enc.is_some() || header.zip.is_some() {
        return Err(TokenFault::Token("the token is encrypted or compressed, which is not supported here"));
    }
    if !header.typ.as_deref().is_none_or(is_access_token) {
        // RFC 8725 3.11: a token of another type has another purpose.
        return Err(TokenFault::Token("the token is not an access token"));
    }
    Ok(())
}

/// Refuses claims that the library wrongly accepts: an array of issuers, although a token has one issuer (RFC
/// 7519 4.1.1), and an `aud` that is neither a text nor an array of texts, if the table names no audience.
fn check_claims(claims: &Map<String, Value>, rule: &Validation) -> Result<(), TokenFault> {
    if !claims.get("iss").is_none_or(Value::is_string) {
        return Err(TokenFault::Token(in_words(&ErrorKind::InvalidIssuer)));
    }
    if rule.aud.is_none() && !claims.get("aud").is_none_or(Value::is_null) {
        return Err(TokenFault::Token(in_words(&ErrorKind::InvalidAudience)));
    }
    Ok(())
}

fn in_words(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token's issuer is not accepted here",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidAlgorithm => "the token's algorithm is not accepted here",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that is required here",
        _ => "this is not a valid token",
    }
}

/// Converts a claim to the value of a header field. Returns `None` for an empty claim, and an error for a claim
/// that a backend could misread.
fn field_value(value: &Value) -> Result<Option<HeaderValue>, TokenFault> {
    const FAULT: TokenFault = TokenFault::Token("the token has a claim that cannot be passed on");
    let text = match value {
        Value::Array(items) => {
            let word = |item| as_text(item).filter(|word| !word.contains(','));
            items.iter().map(word).collect::<Option<Vec<_>>>().ok_or(FAULT)?.join(",")
        }
        Value::Null => return Ok(None),
        value => as_text(value).ok_or(FAULT)?.into_owned(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let is_plain = !text.chars().any(char::is_control) && text.trim() == text;
    HeaderValue::from_bytes(text.as_bytes()).ok().filter(|_| is_plain).map(Some).ok_or(FAULT)
}

#[cfg(test)]
mod tests;
