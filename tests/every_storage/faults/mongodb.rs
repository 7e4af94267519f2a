//! A server that speaks MongoDB's protocol, behind a link.

use super::outages::FaultTarget;
use crate::servers::child::Server;
use crate::servers::link::Proxy;
use crate::servers::mongodb::MongoDb;

pub struct Alone {
    mongodb: MongoDb,
    proxy: Proxy,
}

impl Alone {
    pub fn start() -> Result<Self, String> {
        let mongodb = MongoDb::start()?;
        let proxy = Proxy::to(mongodb.port);
        Ok(Self { mongodb, proxy })
    }
}

impl FaultTarget for Alone {
    fn address(&self) -> String {
        format!("mongodb://127.0.0.1:{}/faults", self.proxy.port())
    }

    fn server(&mut self) -> &mut Server {
        &mut self.mongodb.server
    }

    fn link(&self) -> &Proxy {
        &self.proxy
    }
}
