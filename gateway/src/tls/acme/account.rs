//! The account with an ACME server (RFC 8555 7.3), which is made once and stored with its key.

use instant_acme::{Account, AccountBuilder, NewAccount};
use serde_json::Value;
use tokio::sync::Mutex;

use super::cache::AccountFile;
use super::order::OneOrder;
use super::problem::{OrderError, persist};

impl OneOrder<'_> {
    /// Returns the stored account, or makes a new one. The lock `accounts` is held meanwhile, so that two
    /// orders do not make two accounts.
    pub(super) async fn account(&self, accounts: &Mutex<()>) -> Result<Account, OrderError> {
        let _alone = accounts.lock().await;
        match self.kept()? {
            Some(kept) => self.known_account(kept).await,
            None => self.new_account().await,
        }
    }

    /// Renames the stored account that this order was made with, because the server does not know it. Nothing
    /// happens if another order has already replaced the account.
    pub(super) async fn forget_account(&self, accounts: &Mutex<()>) -> Result<(), OrderError> {
        let _alone = accounts.lock().await;
        let url = self.account_url.get().map(String::as_str);
        match self.kept()? {
            Some(kept) if kept.credentials["id"].as_str() == url => {
                self.cache.put_account_aside().map_err(|error| OrderError::new("make a new account", error))
            }
            _ => Ok(()),
        }
    }

    fn kept(&self) -> Result<Option<AccountFile>, OrderError> {
        self.cache.account().map_err(|error| {
            let reason = format!("{error}; if you remove the file, a new account is made");
            OrderError::new("use the account", reason)
        })
    }

    async fn new_account(&self) -> Result<Account, OrderError> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = persist!(self.builder().create(&new, self.server.directory_url.clone(), None));
        let (account, credentials) = made.map_err(|error| self.failed("make an account", &error))?;
        let credentials =
            serde_json::to_value(credentials).map_err(|error| OrderError::new("store the account", error))?;
        self.keep(credentials)?;
        Ok(account)
    }

    async fn known_account(&self, kept: AccountFile) -> Result<Account, OrderError> {
        let credentials = serde_json::from_value(kept.credentials.clone())
            .map_err(|error| OrderError::new("use the account", error))?;
        let account = self.builder().from_credentials(credentials).await;
        let account = account.map_err(|error| self.failed("use the account", &error))?;
        // A later call of `forget_account` needs the URL, if the server does not know the account.
        self.account_url.get_or_init(|| account.id().to_owned());
        if kept.email != self.server.email {
            let contact = self.contact();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            let told = persist!(account.update_contacts(&contact));
            told.map_err(|error| self.failed("change the contact of the account", &error))?;
            self.keep(kept.credentials)?;
        }
        Ok(account)
    }

    fn keep(&self, credentials: Value) -> Result<(), OrderError> {
        let file = AccountFile { email: self.server.email.clone(), credentials };
        self.cache.keep_account(&file).map_err(|error| OrderError::new("store the account", error))
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.client.clone()))
    }

    /// Returns the contact address for the server (RFC 8555 7.1.2).
    fn contact(&self) -> Option<String> {
        (!self.server.email.is_empty()).then(|| format!("mailto:{}", self.server.email))
    }
}
