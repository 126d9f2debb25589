// Opens Neuroglancer with the levels of a dataset. The address is completed here, because only the
// browser knows by which one it came.

const message = document.getElementById("message");

async function open() {
  const answer = await fetch(`state${location.search}`);
  const found = await answer.json();
  if (!answer.ok) throw new Error([found.error, found.hint].filter(Boolean).join(": "));
  const { state, source } = found;
  state.layers[0].source = `zarr3://${new URL(`../${source}`, location.href)}`;
  location.replace(new URL(`../v/dosna/#!${encodeURIComponent(JSON.stringify(state))}`, location.href));
}

open().catch((error) => {
  message.textContent = error.message;
  message.className = "bad";
});
