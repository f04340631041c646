//! Reading the audit trail and proving that it holds.

use partywall_proto::admin::{AuditRecord, AuditVerdict, Page};
use partywall_proto::problem::Finding;

use super::records::{audit_key, audit_prefix};
use super::resources::PAGE_MAX;
use super::{App, AppError, Principal, READ_AT_ONCE, Result};
use crate::domain::audit::Verifier;

impl App {
    /// A page of a chain, the oldest first; none is the principal's own. The cursor is a sequence.
    ///
    /// # Errors
    /// A chain of another scope, which is audited, or a cursor that is no number.
    pub async fn audit(
        &self,
        principal: &Principal,
        chain: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<AuditRecord>> {
        let own = principal.scope();
        let chain = chain.unwrap_or(own.chain());
        if chain != own.chain() {
            let refused = AppError::Forbidden(format!("the chain {chain} is not yours to read"));
            return self.audited(principal, "audit-read", chain, Err(refused)).await;
        }
        let after = match after.map(str::parse::<u64>) {
            Some(Ok(sequence)) => Some(audit_key(chain, sequence).into_bytes()),
            Some(Err(_)) => {
                let detail = "this is no cursor; take `next` of the page before as it is";
                let at = "cursor".to_owned();
                return Err(AppError::Invalid(vec![Finding::new(at, detail)]));
            }
            None => None,
        };
        let limit = limit.clamp(1, PAGE_MAX);
        let prefix = audit_prefix(chain);
        let store = &self.inner.store;
        let entries = store.range(prefix.as_bytes(), after.as_deref(), limit + 1).await?;
        let more = entries.len() > limit;
        let mut items = Vec::new();
        for entry in entries.into_iter().take(limit) {
            let record: AuditRecord = serde_json::from_slice(&entry.value).map_err(|source| {
                let key = String::from_utf8_lossy(&entry.key).into_owned();
                AppError::Unreadable { key, source }
            })?;
            items.push(record);
        }
        let next = items.last().filter(|_| more).map(|record| record.sequence.to_string());
        Ok(Page { items, next })
    }

    /// Reads the principal's chain from its beginning and says whether it holds.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn audit_verify(&self, principal: &Principal) -> Result<Vec<AuditVerdict>> {
        let scope = principal.scope();
        let chain = scope.chain();
        let head = self.state().chains.get(chain).cloned().unwrap_or_default();
        let prefix = audit_prefix(chain);
        let mut verifier = Verifier::new(chain);
        let mut after: Option<Vec<u8>> = None;
        let mut read = 0;
        loop {
            let store = &self.inner.store;
            let entries = store.range(prefix.as_bytes(), after.as_deref(), READ_AT_ONCE).await?;
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            for entry in &entries {
                let Ok(record) = serde_json::from_slice::<AuditRecord>(&entry.value) else {
                    let key = String::from_utf8_lossy(&entry.key);
                    return Ok(vec![AuditVerdict {
                        chain: chain.to_owned(),
                        records: read,
                        head: head.hash,
                        broken: Some(format!("the record at {key} cannot be read")),
                    }]);
                };
                // What was added since the head was read is the next check's.
                if read == head.sequence {
                    break;
                }
                verifier.record(&record);
                read += 1;
            }
        }
        Ok(vec![verifier.verdict(&head)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Building;
    use super::*;
    use crate::store::{Transaction, Write};

    #[tokio::test]
    async fn every_chain_holds_and_an_altered_record_breaks_it() {
        let building = Building::new().await;
        building.seats().await;
        for principal in [&building.facilities, &building.council, &building.nhs] {
            let verdict = building.app.audit_verify(principal).await.unwrap().remove(0);
            assert_eq!(verdict.broken, None, "{}", verdict.chain);
            assert!(verdict.records > 2, "{}", verdict.chain);
        }
        let key = audit_key("council", 2).into_bytes();
        let entry = building.store.get(&key).await.unwrap().unwrap();
        let altered = String::from_utf8(entry.value).unwrap().replace("Ann", "Bob");
        let writes = vec![Write { key, value: Some(altered.into_bytes()) }];
        let transaction = Transaction { preconditions: Vec::new(), writes };
        building.store.transact(transaction).await.unwrap();
        let verdict = building.app.audit_verify(&building.council).await.unwrap().remove(0);
        assert!(verdict.broken.is_some());
        let verdict = building.app.audit_verify(&building.nhs).await.unwrap().remove(0);
        assert_eq!(verdict.broken, None, "the other chain is not concerned");
    }

    #[tokio::test]
    async fn the_trail_is_read_in_pages_by_its_own_organisation() {
        let building = Building::new().await;
        let (app, council) = (&building.app, &building.council);
        let whole = app.audit(council, Some("council"), None, 1000).await.unwrap();
        assert_eq!(whole.next, None);
        let mut paged = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = app.audit(council, None, after.as_deref(), 3).await.unwrap();
            paged.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole.items);
        let odd = app.audit(council, None, Some("the next one"), 3).await;
        assert!(matches!(odd, Err(AppError::Invalid(_))), "{odd:?}");
        assert!(app.audit(&building.nhs, Some("council"), None, 3).await.is_err());
        let nhs = app.audit(&building.nhs, None, None, 1000).await.unwrap().items;
        let refusal = nhs.last().unwrap();
        assert_eq!((refusal.action.as_str(), refusal.subject.as_str()), ("audit-read", "council"));
        assert!(refusal.outcome.starts_with("refused"));
    }

    #[tokio::test]
    async fn no_secret_enters_the_trail() {
        let building = Building::new().await;
        building.seats().await;
        for principal in [&building.facilities, &building.council, &building.nhs] {
            let page = building.app.audit(principal, None, None, 1000).await.unwrap();
            let text = serde_json::to_string(&page.items).unwrap();
            for secret in ["argon2", "password\":", "totp", "seed", super::super::testing::PASSWORD]
            {
                assert!(!text.contains(secret), "{secret} in the trail");
            }
        }
    }
}
