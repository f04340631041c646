//! Reading the audit trail and proving that it holds.

use partywall_proto::admin::{AuditRecord, AuditVerdict, Page};

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
            Some(Err(_)) => return Err(AppError::NotFound("such a cursor".to_owned())),
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
