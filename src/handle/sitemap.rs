//! The URLs of a sitemap, as the protocol of sitemaps.org defines it.
//!
//! # Invariants
//! - No file makes the cache hold more than [`MAX_BYTES`] of text and [`MAX_URLS`] URLs at a time.
//! - Only URLs of the origin of the sitemap are requested.
//! - No bytes make a function here panic, and no entity of a document is expanded.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use tower_service::Service;

use super::warm::{Run, WarmReport, Warmer, get};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{is_same_origin, resolve};
use crate::storage::Storage;

/// The most bytes of one file, unpacked (sitemaps.org, "Sitemap file location" and "Using Sitemap index files").
const MAX_BYTES: usize = 52_428_800;
/// The most URLs in one file, by the same source.
const MAX_URLS: usize = 50_000;

impl<S, Svc, ReqB, ResB> Warmer<'_, S, Svc, ReqB>
where
    S: Storage,
    Svc: Service<Request<ReqB>, Response = Response<ResB>> + Clone,
    ReqB: Default,
    ResB: Body,
    ResB::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Requests the URLs that a sitemap lists, like [`urls`](Self::urls).
    ///
    /// The sitemap itself is requested through the service too. It is XML or a list of URLs with one in a line, packed by gzip
    /// or not, or an index of such files, which are read one after the other. URLs of another origin than the sitemap's are
    /// left out, as its [protocol](https://www.sitemaps.org/protocol.html) says. A file of an index that cannot be read counts
    /// as failed.
    ///
    /// # Errors
    /// Returns an error if the sitemap cannot be fetched, is none, or is larger than its protocol permits: 50,000 URLs or
    /// 50 MiB.
    #[allow(clippy::future_not_send)] // the future is Send if the service and the bodies are
    pub async fn sitemap(mut self, url: &str) -> Result<WarmReport> {
        let uri =
            url.parse().map_err(|_| Error::new(ErrorKind::Config, "the URL of the sitemap is malformed"))?;
        let mut run = Run::default();
        match self.listed(&uri).await? {
            Listed::Pages(pages) => self.send_pages(&mut run, pages).await,
            Listed::Sitemaps(sitemaps) => {
                for sitemap in sitemaps {
                    match self.listed(&sitemap).await {
                        Ok(Listed::Pages(pages)) => self.send_pages(&mut run, pages).await,
                        // An index lists no indexes.
                        Ok(Listed::Sitemaps(_)) => self.fail(&mut run),
                        Err(error) => {
                            tracing::warn!(%error, "a sitemap that an index names cannot be read");
                            self.fail(&mut run);
                        }
                    }
                }
            }
        }
        Ok(self.finish(run).await)
    }

    #[allow(clippy::future_not_send)]
    async fn send_pages(&mut self, run: &mut Run, pages: Vec<Uri>) {
        let headers = self.headers.clone();
        let requests = pages.into_iter().map(|page| Some(get(page, &headers, ReqB::default())));
        self.send_all(run, requests).await;
    }

    /// Fetches a file, and returns what it lists.
    #[allow(clippy::future_not_send)]
    async fn listed(&self, uri: &Uri) -> Result<Listed> {
        let failed = |what: &'static str| Error::new(ErrorKind::Unavailable, what);
        let mut service = self.service.clone();
        let answer = async {
            std::future::poll_fn(|cx| service.poll_ready(cx)).await.ok()?;
            service.call(get(uri.clone(), &self.headers, ReqB::default())).await.ok()
        };
        let response = answer.await.ok_or_else(|| failed("the sitemap could not be fetched"))?;
        if !response.status().is_success() {
            return Err(failed("the sitemap was not found: the status of the response is not 2xx"));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let bytes = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => failed("the sitemap could not be read to its end"),
        })?;
        parse(&unpack(bytes.to_bytes().into())?, uri)
    }
}

/// The content of a file.
#[derive(Debug, PartialEq)]
enum Listed {
    Pages(Vec<Uri>),
    Sitemaps(Vec<Uri>),
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "the sitemap has more than 50,000 URLs or 50 MiB: split it, and name the parts in an index",
    )
}

fn unreadable() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the sitemap is neither a list of URLs nor XML with the element urlset or sitemapindex",
    )
}

/// Unpacks a file if it is packed by gzip.
fn unpack(bytes: Vec<u8>) -> Result<String> {
    let mut plain = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let unpacked = MultiGzDecoder::new(&bytes[..]).take(MAX_BYTES as u64 + 1).read_to_end(&mut plain);
        unpacked.map_err(|_| unreadable())?;
        if plain.len() > MAX_BYTES {
            return Err(too_large());
        }
        plain
    } else {
        bytes
    };
    String::from_utf8(bytes).map_err(|_| unreadable())
}

/// Returns the URLs of a file that are of its own origin.
fn parse(text: &str, base: &Uri) -> Result<Listed> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let mut found = Vec::new();
    let mut add = |url: &str| {
        if let Some(uri) = resolve(base, url.trim()).filter(|uri| is_same_origin(uri, base)) {
            if found.len() == MAX_URLS {
                return Err(too_large());
            }
            found.push(uri);
        }
        Ok(())
    };
    let is_index = if text.starts_with('<') {
        read_xml(text, add)?
    } else {
        text.lines().filter(|line| !line.trim().is_empty()).try_for_each(&mut add)?;
        false
    };
    Ok(if is_index { Listed::Sitemaps(found) } else { Listed::Pages(found) })
}

/// Calls a function with each URL of an XML file, and returns whether the file is an index.
///
/// A URL is the text of an element `loc` in an element `url` or `sitemap`. Other elements `loc`, such as those of images, are
/// of other namespaces.
fn read_xml(text: &str, mut add: impl FnMut(&str) -> Result<()>) -> Result<bool> {
    let mut reader = Reader::from_str(text);
    let (mut is_index, mut depth, mut is_entry) = (None, 0_usize, false);
    // The text of the URL that is being read.
    let mut url: Option<String> = None;
    loop {
        match reader.read_event().map_err(|_| unreadable())? {
            Event::Start(element) => {
                let name = element.local_name();
                match (depth, name.as_ref()) {
                    (0, "urlset") => is_index = Some(false),
                    (0, "sitemapindex") => is_index = Some(true),
                    (0, _) => return Err(unreadable()),
                    (1, name) => is_entry = matches!(name, "url" | "sitemap"),
                    (2, "loc") if is_entry => url = Some(String::new()),
                    _ => {}
                }
                depth += 1;
            }
            Event::End(_) => {
                depth -= 1; // the reader checks that each end has its beginning
                if depth == 2
                    && let Some(url) = url.take()
                {
                    add(&url)?;
                }
            }
            Event::Text(part) => url.iter_mut().for_each(|url| url.push_str(&part)),
            Event::CData(part) => url.iter_mut().for_each(|url| url.push_str(&part)),
            Event::GeneralRef(entity) => {
                let Some(url) = &mut url else { continue };
                let letter = entity.resolve_char_ref().map_err(|_| unreadable())?;
                match (letter, resolve_xml_entity(&entity)) {
                    (Some(letter), _) => url.push(letter),
                    (None, Some(text)) => url.push_str(text),
                    // One that the document defines.
                    (None, None) => return Err(unreadable()),
                }
            }
            Event::Eof => return is_index.filter(|_| depth == 0).ok_or_else(unreadable),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn base() -> Uri {
        Uri::from_static("https://example.com/maps/sitemap.xml")
    }

    fn pages(text: &str) -> Vec<String> {
        match parse(text, &base()).unwrap() {
            Listed::Pages(pages) => pages.iter().map(Uri::to_string).collect(),
            listed => panic!("{listed:?}"),
        }
    }

    #[test]
    fn locations_of_pages_are_found() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <!-- <url><loc>https://example.com/comment</loc></url> -->
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
              <url><loc>https://example.com/a?b=1&amp;c=2</loc><lastmod>2026-01-01</lastmod>
                <image:image><image:loc>https://example.com/image.png</image:loc></image:image></url>
              <url><loc>
                 https://example.com/&#98;
              </loc></url>
              <url><loc><![CDATA[https://example.com/c&d]]></loc></url>
              <url><loc>https://other.example/e</loc></url>
              <url><loc>not a URL</loc></url>
              <url/>
            </urlset>"#;
        assert_eq!(
            pages(text),
            ["https://example.com/a?b=1&c=2", "https://example.com/b", "https://example.com/c&d"]
        );
        assert_eq!(pages("<s:urlset><s:url><s:loc>/a</s:loc></s:url></s:urlset>"), ["https://example.com/a"]);
        assert_eq!(
            pages("\u{feff}https://example.com/a\r\n\n https://example.com/b"),
            ["https://example.com/a", "https://example.com/b"]
        );
        let index = "<sitemapindex><sitemap><loc>https://example.com/1.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(
            parse(index, &base()).unwrap(),
            Listed::Sitemaps(vec![Uri::from_static("https://example.com/1.xml.gz")])
        );
    }

    #[test]
    fn files_that_are_none_are_refused() {
        for text in [
            "<html><body>not found</body></html>",
            "<urlset><url><loc>https://example.com/a</loc>",
            "<urlset></url></urlset>",
            "<urlset><url><loc>&custom;</loc></url></urlset>",
            "<urlset><url><loc>&#x110000;</loc></url></urlset>",
            "<!DOCTYPE a [<!ENTITY b \"bbbbbbbb\">]><urlset><url><loc>https://example.com/&b;</loc></url></urlset>",
            "<",
        ] {
            assert_eq!(parse(text, &base()).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
        let many = "https://example.com/a\n".repeat(MAX_URLS);
        assert_eq!(pages(&many).len(), MAX_URLS);
        assert_eq!(parse(&format!("{many}/b"), &base()).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(unpack(vec![0xff]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn packed_files_are_unpacked_up_to_their_limit() {
        let pack = |bytes: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(bytes).unwrap();
            packed.finish().unwrap()
        };
        assert_eq!(unpack(pack(b"https://example.com/a")).unwrap(), "https://example.com/a");
        let bomb = pack(&vec![b'\n'; MAX_BYTES + 1]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(unpack(bomb).unwrap_err().kind(), ErrorKind::TooLarge);
        let whole = pack(b"https://example.com/a");
        assert_eq!(unpack(whole[..whole.len() - 9].to_vec()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
