//! DynamoDB Local behind a link.
//!
//! When it is restarted without its data, it has no table, and the storage creates the table again.

use super::outages::FaultTarget;
use crate::servers::child::Server;
use crate::servers::dynamodb::{self, DynamoDb};
use crate::servers::link::Proxy;

pub struct Local {
    dynamodb: DynamoDb,
    proxy: Proxy,
}

impl Local {
    pub fn start() -> Result<Self, String> {
        let dynamodb = DynamoDb::start()?;
        let proxy = Proxy::to(dynamodb.port);
        Ok(Self { dynamodb, proxy })
    }
}

impl FaultTarget for Local {
    fn address(&self) -> String {
        let endpoint = format!("http://127.0.0.1:{}", self.proxy.port());
        format!("{}&cache_name=faults", dynamodb::address(&endpoint))
    }

    fn server(&mut self) -> &mut Server {
        &mut self.dynamodb.server
    }

    fn link(&self) -> &Proxy {
        &self.proxy
    }
}
