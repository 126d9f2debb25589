// The page of `dosna view`: H5Web over the server's protocol, below a bar of links.

import "./storage.js"; // before what looks for it
import { App, H5GroveProvider, createBasicFetcher } from "@h5web/app";
import "@h5web/app/styles.css";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import "./page.css";

const LOST = "The server does not answer: start it again, and open the address that it prints";

const root = document.querySelector("#root");
const { name } = root.dataset;
const given = new URLSearchParams(location.search).get("path") || root.dataset.path;

// H5Web needs an absolute URL for its links of export.
const url = new URL("h5grove", document.baseURI).href;

// `lines` asks the server to describe very long lines by fewer points; see dosna/serve/h5grove.
const basic = createBasicFetcher();
const fetcher = (address, parameters, options) =>
  basic(address, { ...parameters, lines: "short" }, options).catch((error) => {
    // Browsers say of a lost server only that they have "failed to fetch".
    throw error instanceof TypeError ? new Error(LOST) : error;
  });

// Return the path that is selected, which H5Web tells in its bar of breadcrumbs only.
function selectedPath() {
  const crumbs = document.querySelector("#root h1");
  if (!crumbs) return undefined;
  const names = [...crumbs.querySelectorAll("span")].map((crumb) => crumb.textContent);
  const isRoot = !crumbs.querySelector("button");
  if (isRoot) return "/";
  // Without the sidebar the first crumb is the name of the connection.
  const collapsed = document.querySelector("#root [data-sidebar-collapsed]") !== null;
  return `/${names.slice(collapsed ? 1 : 0).join("/")}`;
}

function useSelectedPath() {
  const [path, setPath] = useState(given);
  useEffect(() => {
    const observer = new MutationObserver(() => setPath((last) => selectedPath() ?? last));
    observer.observe(root, { childList: true, subtree: true, characterData: true });
    return () => observer.disconnect();
  }, []);
  return path;
}

function useLinks(path) {
  const [links, setLinks] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    setLinks([]);
    fetch(`links?${new URLSearchParams({ path })}`, { signal: stop.signal })
      .then((answer) => (answer.ok ? answer.json() : []))
      .then(setLinks)
      .catch(() => {}); // the server has ended, or another path is selected
    return () => stop.abort();
  }, [path]);
  return links;
}

function Bar() {
  const path = useSelectedPath();
  const links = useLinks(path);
  useEffect(() => {
    const address = new URL(location.href);
    address.searchParams.delete("token"); // the cookie is there by now
    address.searchParams.set("path", path);
    history.replaceState(null, "", address);
    document.title = `${path === "/" ? name : path.slice(1)} – dosna`;
  }, [path]);
  return (
    <header className="dosna-bar">
      <span className="dosna-name">{name}</span>
      {links.map(({ label, href, hint }) =>
        href ? (
          <a key={label} href={href} title={hint} target="_blank" rel="noreferrer">
            {label}
          </a>
        ) : (
          <span key={label} className="dosna-note" title={hint}>
            {label}
          </span>
        ),
      )}
    </header>
  );
}

createRoot(root).render(
  <>
    <Bar />
    <main className="dosna-main">
      <H5GroveProvider url={url} filepath={name} fetcher={fetcher}>
        <App initialPath={given} disableDarkMode />
      </H5GroveProvider>
    </main>
  </>,
);
