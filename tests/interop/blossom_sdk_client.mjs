// blossom-client-sdk as a client: uploads to a server, mirrors to another, lists, downloads, deletes. Arguments: both URLs, the bytes in hex.
// Prints what it was told, as JSON.
import { Actions, createDeleteAuth, createListAuth, createMirrorAuth, createUploadAuth } from "blossom-client-sdk";
import { finalizeEvent, generateSecretKey, getPublicKey } from "nostr-tools/pure";

const [first, second, hex] = process.argv.slice(1);
const key = generateSecretKey();
const signer = async (draft) => finalizeEvent(draft, key);
const blob = new Blob([Buffer.from(hex, "hex")], { type: "application/octet-stream" });
const onAuth = (server, sha256) => createUploadAuth(signer, sha256, { servers: server });

const uploaded = await Actions.uploadBlob(first, blob, { onAuth });
const again = await Actions.uploadBlob(first, blob, { onAuth, auth: true });
const mirrored = await Actions.mirrorBlob(second, uploaded, { onAuth: (server, sha256) => createMirrorAuth(signer, sha256, { servers: server }) });
const listed = await Actions.listBlobs(second, getPublicKey(key), { onAuth: () => createListAuth(signer) });
const downloaded = Buffer.from(await (await Actions.downloadBlob(second, uploaded.sha256)).arrayBuffer()).toString("hex");
const deleted = await Actions.deleteBlob(first, uploaded.sha256, { onAuth: (server, sha256) => createDeleteAuth(signer, sha256, { servers: server }) });
const left = [await Actions.hasBlob(first, uploaded.sha256), await Actions.hasBlob(second, uploaded.sha256)];
console.log(JSON.stringify({ uploaded, again, mirrored, listed, downloaded, deleted, left }));
