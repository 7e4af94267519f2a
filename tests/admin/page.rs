//! The page, in Chromium.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_response_cache::admin::{self, Admin};
use tower_response_cache::storage::{BoxStorage, MemoryStorage};
use tower_response_cache::{CacheLayer, CacheOptions, EntryFilter};

use crate::browser::Browser;
use crate::support::{Fixture, Origin, response};
use crate::world::{TOKEN, World};

/// A world that is served, and its address with the password.
struct Served {
    world: Arc<World>,
    address: String,
}

impl Served {
    async fn new(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = world.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world: Arc::new(world), address }
    }

    fn url(&self) -> String {
        let token = TOKEN.replace(' ', "%20");
        format!("http://admin:{token}@{}/", self.address)
    }
}

/// Runs the steps of a person at the browser, beside the server.
async fn person(steps: impl FnOnce(&mut Browser) + Send + 'static) {
    let task = tokio::task::spawn_blocking(|| {
        if let Some(mut browser) = Browser::start() {
            steps(&mut browser);
            browser.assert_quiet();
        }
    });
    task.await.unwrap();
}

const LISTED: &str = "!document.querySelector('#matching').textContent.startsWith('Reading') \
                      && document.querySelector('#matching').textContent !== ''";

fn confirm(browser: &mut Browser, text: &str) {
    browser.until("document.querySelector('#confirm').open");
    let asked = browser.text("#confirm-text");
    assert!(asked.contains(text), "{asked}");
    browser.value("document.querySelector('#done').hidden = true");
    browser.click("#confirm-yes");
    browser.until("!document.querySelector('#confirm').open && !document.querySelector('#done').hidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_button_does_what_it_says() {
    let served = Served::new(World::new()).await;
    served.world.store(&["/a?red", "/b?red+blue", "/c?green", "/group", "/missing", "/d", "/secret"]).await;
    let (url, world) = (served.url(), Arc::clone(&served.world));
    let runtime = tokio::runtime::Handle::current();
    person(move |browser| {
        let stored = || runtime.block_on(world.stored());
        let fresh = || {
            let filter = EntryFilter::new().fresh();
            let handle = world.cache.layer.handle();
            runtime.block_on(async {
                futures_util::TryStreamExt::try_collect::<Vec<_>>(handle.urls(&filter)).await.unwrap().len()
            })
        };
        browser.open(&url);
        browser.until(LISTED);
        assert!(browser.text("#matching").starts_with("7 responses, "));
        let urls = "[...document.querySelectorAll('#entries tbody tr')].map((row) => row.cells[0].textContent)";
        let all = browser.value(urls);
        assert_eq!((all[0].as_str(), all[6].as_str()), (Some("http://example.com/a?red"), Some("http://example.com/secret")));
        browser.until("document.querySelector('#storage').textContent.startsWith('The storage works: ')");
        browser.until("document.querySelectorAll('#tiles div').length === 6");

        // Sorting: one way, and the other.
        for (order, first) in [("ascending", "200"), ("descending", "404")] {
            browser.click("#entries [data-sort=status]");
            browser.until(&format!("document.querySelector('[aria-sort]').ariaSort === '{order}'"));
            browser.until(LISTED);
            browser.until(&format!("document.querySelector('#entries tbody tr').cells[1].textContent === '{first}'"));
        }

        // Searching.
        browser.fill("#search [name=contains]", "/a");
        browser.click("#find");
        browser.until("document.querySelector('#matching').textContent.startsWith('1 response,')");
        browser.click("#show-all");
        browser.until("document.querySelector('#matching').textContent.startsWith('7 responses,')");
        browser.fill("#search [name=tag]", "green");
        browser.press("Enter");
        browser.until("document.querySelector('#matching').textContent.startsWith('1 response,')");
        // A mistake is told.
        browser.fill("#search [name=status]", "many");
        browser.click("#find");
        browser.until("document.querySelector('#error').textContent.startsWith('status has to be')");
        browser.fill("#search [name=status]", "2xx");
        browser.click("#find");
        browser.until("document.querySelector('#error').hidden");
        browser.until(LISTED);

        // Nothing is done unless it is confirmed.
        for leave in ["#confirm-no", ""] {
            browser.click("#delete-matching");
            browser.until("document.querySelector('#confirm').open");
            assert_eq!(browser.value("document.activeElement.id"), "confirm-no");
            if leave.is_empty() { browser.press("Escape") } else { browser.click(leave) }
            browser.until("!document.querySelector('#confirm').open");
        }
        assert_eq!((stored().len(), fresh()), (7, 7));
        browser.click("#expire-matching");
        confirm(browser, "status: 2xx, tag: green");
        assert_eq!((browser.text("#done"), fresh()), ("Responses made stale: 1".to_owned(), 6));
        browser.click("#delete-matching");
        confirm(browser, "tag: green");
        assert_eq!(browser.text("#done"), "Responses deleted: 1");
        assert!(!stored().contains(&"/c?green".to_owned()));

        // One response.
        browser.click("#show-all");
        browser.until("document.querySelector('#matching').textContent.startsWith('6 responses,')");
        browser.click("#entries tbody tr:last-child button");
        browser.until("document.querySelector('#entry').open");
        let first = browser.text("#entry-title");
        browser.click("#entry-close");
        browser.until("!document.querySelector('#entry').open");
        assert!(first.starts_with("http://example.com/"));
        browser.fill("#why [name=url]", "http://example.com/secret");
        browser.click("#explain");
        browser.until("document.querySelector('#entry').open");
        assert_eq!(browser.text("#entry-why"), "It is fresh, and served without asking the origin.");
        let fields = browser.text("#entry-fields");
        assert!(fields.contains("<b>shown</b>") && fields.contains("x-auth-tokenwithheld") && !fields.contains("hidden"), "{fields}");
        browser.click("#entry-expire");
        confirm(browser, "http://example.com/secret");
        browser.until("document.querySelector('#entry-why').textContent.startsWith('It was made stale by hand')");
        browser.click("#entry-variants");
        browser.until("!document.querySelector('#entry').open && document.querySelector('#matching').textContent.startsWith('1 response,')");
        assert_eq!(browser.value(urls), json!(["http://example.com/secret"]));
        browser.click("#entries tbody button");
        browser.until("document.querySelector('#entry').open");
        browser.click("#entry-delete");
        confirm(browser, "http://example.com/secret");
        browser.until("!document.querySelector('#entry').open");
        assert!(!stored().contains(&"/secret".to_owned()));
        browser.fill("#why [name=url]", "http://example.com/secret");
        browser.press("Enter");
        browser.until("document.querySelector('#entry').open");
        assert!(browser.text("#entry-why").contains("deleted"));
        assert_eq!(browser.value("document.querySelector('#entry-delete').disabled"), true);
        browser.press("Escape");
        browser.until("!document.querySelector('#entry').open");

        // Tags.
        browser.click("#load-tags");
        browser.until("!document.querySelector('#tags').hidden");
        let names = "[...document.querySelectorAll('#tags tbody tr')].map((row) => row.cells[0].textContent + ' ' + row.cells[1].textContent)";
        assert_eq!(browser.value(names), json!(["blue ", "red ", "news http://example.com"]));
        let before = fresh();
        browser.click("#tags tbody tr:nth-child(1) button:not(.danger)");
        confirm(browser, "tag blue, 1 now");
        assert_eq!((browser.text("#done"), fresh()), ("Tag made stale".to_owned(), before - 1));
        browser.click("#tags tbody tr:nth-child(2) button.danger");
        confirm(browser, "tag red, 2 now");
        browser.click("#tags tbody tr:last-child button.danger");
        confirm(browser, "group news");
        browser.until("document.querySelectorAll('#tags tbody tr').length === 1");
        assert_eq!(stored(), ["/d", "/missing"]);

        // Everything.
        browser.fill("#warm [name=urls]", "http://example.com/a?red\nhttp://example.com/d");
        browser.click("#fetch");
        browser.until("document.querySelector('#warmed').textContent.startsWith('stored: 1, hits: 1')");
        browser.click("#verify");
        browser.until("document.querySelector('#verified').textContent.startsWith('All is well: 5 responses')");
        browser.click("#expire-all");
        confirm(browser, "validated");
        assert_eq!((stored().len(), fresh()), (3, 0));
        browser.click("#delete-all");
        confirm(browser, "removed");
        browser.until("document.querySelector('#matching').textContent.startsWith('0 responses')");
        assert_eq!(stored(), [""; 0]);
        // Each button of the page was pressed above, or is in this list.
        let buttons = browser.value("[...document.querySelectorAll('button[id]')].map((button) => button.id).sort()");
        let known = json!([
            "confirm-no", "confirm-yes", "delete-all", "delete-matching", "entry-close", "entry-delete",
            "entry-expire", "entry-variants", "expire-all", "expire-matching", "explain", "fetch", "find",
            "load-tags", "more-tags", "next", "previous", "show-all", "verify",
        ]);
        assert_eq!(buttons, known, "next, previous and more-tags are in large_storage_is_browsed_by_pages");
        // The mistake above is the only one that the browser has noted.
        let noted = "performance.getEntriesByType('resource').filter((entry) => entry.responseStatus >= 400).length";
        assert_eq!(browser.value(noted), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_stays_text() {
    const HOSTILE: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=2</script>";
    let origin = Origin::new(|_| {
        let fields = [
            ("cache-control", "max-age=600"),
            ("content-type", HOSTILE),
            ("x-hostile", HOSTILE),
            ("surrogate-key", "<svg/onload=window.hacked=3>"),
            ("cache-groups", "\"<svg/onload=window.hacked=4>\""),
        ];
        response(&fields, "body")
    });
    let cache = Fixture::with(origin, MemoryStorage::new(), |builder| {
        builder.shared(true).tag_fields(["surrogate-key"])
    });
    let names =
        [HOSTILE, "javascript:window.hacked=5", "'\"><b>", "\u{202e}txt.exe\u{0}\n", "${window.hacked=6}"];
    for name in names {
        let options = CacheOptions::new().key(name);
        let mut request = Request::get("http://example.com/?'`${x}").body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(options);
        cache.ask(request).await;
    }
    cache.get("http://example.com/%3Cscript%3E?a='&b=`").await;
    cache.layer.idle().await;
    let router = admin::router(cache.layer.handle(), admin::token(TOKEN));
    let served = Served::new(World { cache, router }).await;
    let url = served.url();
    person(move |browser| {
        browser.open(&url);
        browser.until(LISTED);
        assert!(browser.text("#matching").starts_with("6 responses"), "{}", browser.text("#matching"));
        let list = browser.text("#entries tbody");
        assert!(list.contains(HOSTILE) && list.contains("\\u{202e}txt.exe\\u{0}\\u{a}"), "{list}");
        browser.click("#load-tags");
        browser.until("!document.querySelector('#tags').hidden");
        assert!(browser.text("#tags").contains("<svg/onload=window.hacked=3>"));
        for row in 1..=6 {
            browser.click(&format!("#entries tbody tr:nth-child({row}) button"));
            browser.until("document.querySelector('#entry').open");
            assert!(browser.text("#entry-fields").contains(HOSTILE));
            browser.click("#entry-delete");
            browser.until("document.querySelector('#confirm').open");
            browser.press("Escape");
            browser.until("!document.querySelector('#confirm').open");
            browser.click("#entry-close");
            browser.until("!document.querySelector('#entry').open");
        }
        // The page's own script and icon, and nothing else.
        let there = "document.querySelectorAll('script, img, iframe, object, embed, b, body svg:not(.plot), [onerror], [onload], [style]').length";
        assert_eq!(browser.value(there), 1);
        assert_eq!(browser.value("typeof window.hacked"), "undefined");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_storage_is_browsed_by_pages() {
    const ENTRIES: usize = 100_000;
    let origin = Origin::new(|request| {
        let number = request.uri().path().trim_start_matches("/item/").to_owned();
        let tag = format!("tag-{}", number.parse::<usize>().unwrap_or_default() % 150);
        response(&[("cache-control", "max-age=600"), ("surrogate-key", &tag)], "body")
    });
    let storage = MemoryStorage::builder().max_bytes(1 << 30).build();
    let cache = Fixture::with(origin, storage, |builder| builder.shared(true).tag_fields(["surrogate-key"]));
    for number in 0..ENTRIES {
        let request =
            Request::get(format!("http://example.com/item/{number:06}")).body(Full::default()).unwrap();
        cache.service.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    }
    cache.layer.idle().await;
    let router = Admin::new(cache.layer.handle(), admin::token(TOKEN)).router();
    let served = Served::new(World { cache, router }).await;
    let url = served.url();
    person(move |browser| {
        let first = "document.querySelector('#entries tbody tr').cells[0].textContent";
        browser.open(&url);
        browser.until(LISTED);
        assert!(browser.text("#matching").starts_with("100,000 responses"), "{}", browser.text("#matching"));
        assert_eq!(browser.value("document.querySelectorAll('#entries tbody tr').length"), 50);
        assert_eq!(browser.value(first), "http://example.com/item/000000");
        for page in [50, 100] {
            browser.click("#next");
            browser.until(&format!("{first} === 'http://example.com/item/{page:06}'"));
        }
        browser.click("#previous");
        browser.until(&format!("{first} === 'http://example.com/item/000050'"));
        browser.click("#entries [data-sort=url]");
        browser.until(&format!("{first} === 'http://example.com/item/099999'"));
        browser.fill("#search [name=tag]", "tag-7");
        browser.click("#find");
        browser.until("document.querySelector('#matching').textContent.startsWith('667 responses')");
        browser.click("#load-tags");
        browser.until("document.querySelectorAll('#tags tbody tr').length === 100");
        browser.click("#more-tags");
        browser.until("document.querySelectorAll('#tags tbody tr').length === 150");
        assert_eq!(browser.value("document.querySelector('#more-tags').hidden"), true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_fits_a_phone_and_a_keyboard() {
    let served = Served::new(World::new()).await;
    let long = format!("/{}?red+blue", "long".repeat(100));
    served.world.store(&["/a?red", &long, "/secret"]).await;
    let url = served.url();
    person(move |browser| {
        for (width, scheme) in [(320, "light"), (390, "dark"), (1200, "light")] {
            let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
            browser.call("Emulation.setDeviceMetricsOverride", metrics);
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.call("Emulation.setEmulatedMedia", media);
            browser.open(&url);
            browser.until(LISTED);
            browser.click("#load-tags");
            browser.until("!document.querySelector('#tags').hidden");
            let too_wide = "[...document.querySelectorAll('body *')].filter((element) => \
                element.getBoundingClientRect().right > innerWidth + 1 && element.checkVisibility() \
                && !element.closest('.scroll')).map((element) => element.outerHTML.slice(0, 80))";
            assert_eq!(browser.value(too_wide), json!([]), "at {width}");
            assert_eq!(browser.value("document.scrollingElement.scrollWidth <= innerWidth"), true);
            let is_dark = "getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 27)'";
            assert_eq!(browser.value(is_dark), scheme == "dark");
            // Text and its background differ enough (WCAG 2 AA).
            let faint = "(() => {
                const light = (color) => {
                    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
                        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const back = (element) => {
                    for (; element; element = element.parentElement) {
                        const color = getComputedStyle(element).backgroundColor;
                        if (color !== 'rgba(0, 0, 0, 0)') return color;
                    }
                };
                return [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility()
                    && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
                    && !element.disabled).filter((element) => {
                    const both = [light(getComputedStyle(element).color), light(back(element))].sort();
                    return (both[1] + 0.05) / (both[0] + 0.05) < 4.5;
                }).map((element) => element.outerHTML.slice(0, 80));
            })()";
            assert_eq!(browser.value(faint), json!([]), "at {width} {scheme}");
        }
        // Every field has a label, and every button says what it does.
        let unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((field) => !field.labels[0]?.textContent.trim()).length \
                       + [...document.querySelectorAll('button')].filter((button) => !button.textContent.trim() && button.id !== 'confirm-yes').length";
        assert_eq!(browser.value(unnamed), 0);
        // All that can be done is reached by Tab, in the order of the page.
        browser.value("document.activeElement.blur()");
        let mut reached = Vec::new();
        for _ in 0..60 {
            browser.press("Tab");
            let name = "(({ id, name, dataset, className, textContent }) => id || name || dataset.sort || className || textContent)(document.activeElement)";
            reached.push(browser.value(name).as_str().unwrap().to_owned());
        }
        for wanted in ["skip", "contains", "find", "url", "link", "expire-all", "delete-all", "verify", "urls", "explain"] {
            assert!(reached.iter().any(|name| name == wanted), "{wanted} is not in {reached:?}");
        }
        // A dialog takes the focus, keeps it, and gives it back.
        browser.value("document.querySelector('#entries tbody button').focus()");
        browser.press("Enter");
        browser.until("document.querySelector('#entry').open && document.activeElement.id === 'entry-close'");
        for _ in 0..12 {
            browser.press("Tab");
            let inside = "document.activeElement === document.body || document.querySelector('#entry').contains(document.activeElement)";
            assert_eq!(browser.value(inside), true);
        }
        browser.press("Escape");
        browser.until("!document.querySelector('#entry').open && document.activeElement.closest('#entries') !== null");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_without_the_password_sees_nothing() {
    let served = Served::new(World::new()).await;
    served.world.store(&["/a"]).await;
    let address = served.address.clone();
    let task = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start() else { return };
        for user in ["", "admin:wrong@"] {
            browser.open(&format!("http://{user}{address}/"));
            assert_eq!(browser.value("document.querySelectorAll('section').length"), 0);
            let text = browser.value("document.body.innerText");
            assert!(!text.as_str().unwrap().contains("Cache administration"), "{text}");
        }
    });
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_another_site_can_do_nothing() {
    let served = Served::new(World::new()).await;
    served.world.store(&["/a", "/b"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = listener.local_addr().unwrap();
    let page =
        || async { ([(header::CONTENT_TYPE, "text/html")], "<!doctype html><title>evil</title><body>") };
    let router = axum::Router::new().fallback(page);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (url, address, world) = (served.url(), served.address.clone(), Arc::clone(&served.world));
    let runtime = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start() else { return };
        // The browser knows the password from now on.
        browser.open(&url);
        browser.until(LISTED);
        // Another port, since browsers keep passwords from pages at other names.
        browser.open(&format!("http://{evil}/"));
        let tries = [
            ("POST", "api/v1/purge/all", "'Content-Type': 'text/plain'", "'{\"confirm\":true}'"),
            (
                "POST",
                "api/v1/purge/all",
                "'Content-Type': 'application/json', 'X-Cache-Admin': '1'",
                "'{\"confirm\":true}'",
            ),
            ("POST", "api/v1/verify", "", "undefined"),
            ("PURGE", "a", "", "undefined"),
            ("GET", "api/v1/entries", "", "undefined"),
        ];
        for (method, path, fields, body) in tries {
            for mode in ["cors", "no-cors"] {
                let script = format!(
                    "fetch('http://{address}/{path}', {{ method: '{method}', mode: '{mode}', credentials: 'include', \
                     headers: {{ {fields} }}, body: {body} }}).then((response) => response.text(), () => '')"
                );
                assert_eq!(browser.value(&script), "", "{method} {path} {mode}");
            }
        }
        let form = format!(
            "new Promise((resolve) => {{
                const frame = document.createElement('iframe');
                frame.name = 'frame';
                document.body.append(frame);
                const form = document.createElement('form');
                Object.assign(form, {{ method: 'post', enctype: 'text/plain', target: 'frame', action: 'http://{address}/api/v1/purge/all' }});
                const input = document.createElement('input');
                input.name = '{{\"confirm\":true, \"soft';
                input.value = '\": false}}';
                form.append(input);
                document.body.append(form);
                frame.addEventListener('load', () => resolve(true));
                form.submit();
            }})"
        );
        assert_eq!(browser.value(&form), true);
        assert_eq!(runtime.block_on(world.stored()), ["/a", "/b"]);
        assert_eq!(runtime.block_on(world.get("/api/v1/verify")).json()["state"], "never");
    });
    task.await.unwrap();
}

/// Takes the pictures of the documentation, of a cache under traffic for a minute:
/// `cargo test --features admin --test admin -- --ignored pictures`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes src/_documentation/pictures/admin-*.png"]
async fn pictures() {
    let origin = Origin::new(|request| {
        std::thread::sleep(Duration::from_millis(2 + request.uri().path().len() as u64 % 5));
        let path = request.uri().path();
        let tag = if path.starts_with("/news") { "news front-page" } else { "shop" };
        response(
            &[
                ("cache-control", "max-age=120, stale-while-revalidate=600"),
                ("surrogate-key", tag),
                ("content-type", "text/html; charset=utf-8"),
                ("etag", "\"a1b2\""),
                ("set-cookie", "seen=1"),
            ],
            vec![b'x'; 200 * path.len()],
        )
    });
    let layer = CacheLayer::builder(BoxStorage::new(MemoryStorage::new()))
        .tag_fields(["surrogate-key"])
        .build()
        .unwrap();
    let service = layer.layer(origin);
    let router = Admin::new(layer.handle(), admin::token(TOKEN)).router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://admin:{}@{}/", TOKEN.replace(' ', "%20"), listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let traffic = tokio::spawn(async move {
        let mut seed = 1_u64;
        for number in 0_u64.. {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let range = if number % 1500 < 500 { 900 } else { 60 };
            let kind = ["news", "shop/shoes", "shop/hats"][(seed >> 40) as usize % 3];
            let url = format!("https://www.example.com/{kind}/{}", (seed >> 50) % range);
            let request = Request::get(url).body(Full::default()).unwrap();
            service.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    person(move |browser| {
        let shot = |browser: &mut Browser, name: &str| {
            let data = browser.call("Page.captureScreenshot", json!({ "format": "png" }))["data"].clone();
            let path = format!("{}/src/_documentation/pictures/{name}.png", env!("CARGO_MANIFEST_DIR"));
            let mut decode = Command::new("base64")
                .arg("-d")
                .stdin(Stdio::piped())
                .stdout(File::create(path).unwrap())
                .spawn()
                .unwrap();
            decode.stdin.take().unwrap().write_all(data.as_str().unwrap().as_bytes()).unwrap();
            assert!(decode.wait().unwrap().success());
        };
        let screen = |browser: &mut Browser, width: u32, height: u32| {
            let metrics =
                json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
            browser.call("Emulation.setDeviceMetricsOverride", metrics);
        };
        screen(browser, 1000, 760);
        browser.open(&url);
        std::thread::sleep(Duration::from_secs(62));
        browser.click("#show-all");
        browser.until(LISTED);
        browser.value("scrollTo(0, 0)");
        shot(browser, "admin-wide");
        screen(browser, 390, 844);
        browser.value("document.querySelector('#responses').scrollIntoView()");
        shot(browser, "admin-phone");
        screen(browser, 900, 620);
        browser.click("#entries tbody button");
        browser.until("document.querySelector('#entry').open");
        shot(browser, "admin-entry");
    })
    .await;
    traffic.abort();
}
