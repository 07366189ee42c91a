// What a page of another origin tries on Prefect's API and ours; answers what became of each try.
async ([prefect, api, name]) => {
  const outcomes = {};
  const tried = async (what, work) => { try { outcomes[what] = await work(); } catch (error) { outcomes[what] = "refused"; } };
  const read = url => async () => { const answer = await fetch(url); return "read " + (await answer.text()); };
  const json = {name, value: "1"};
  const event = {specversion: "1.0", id: name, source: "page", type: "page.visited"};
  await tried("read prefect", read(prefect + "/admin/settings"));
  await tried("read prefect with credentials", async () => {
    const answer = await fetch(prefect + "/admin/settings", {credentials: "include"}); return "read " + (await answer.text());
  });
  await tried("read api", read(api + "/metrics"));
  await tried("post json to prefect", async () => {
    await fetch(prefect + "/variables/", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(json)}); return "sent";
  });
  await tried("post json to api", async () => {
    await fetch(api + "/events", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(event)}); return "sent";
  });
  // These two are sent without asking first; a body without a type is JSON to Prefect.
  for (const [what, url, body] of [["prefect", prefect + "/variables/", json], ["api", api + "/events", event]]) {
    for (const type of ["", "text/plain"]) {
      await tried(`blind post of '${type}' to ${what}`, async () => {
        const answer = await fetch(url, {method: "POST", mode: "no-cors", body: new Blob([JSON.stringify(body)], {type})});
        return answer.type;
      });
    }
  }
  await tried("websocket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(prefect.replace("http", "ws") + "/events/out", "prefect");
    socket.onopen = () => resolve("opened");
    socket.onerror = () => reject();
  }));
  await tried("script", () => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = prefect + "/admin/version";
    script.onload = () => resolve("loaded"); script.onerror = () => reject();
    document.head.append(script);
  }));
  await tried("frame", () => new Promise(resolve => {
    const frame = document.createElement("iframe");
    frame.src = prefect.replace("/api", "/");
    frame.onload = () => resolve(frame.contentDocument ? "shown" : "refused");
    document.body.append(frame);
  }));
  return outcomes;
}
