// Learns documents, watches the run until it ends, and asks an alias a question:
//
//     node dist/learn.js CONFIG ALIAS QUESTION DOCUMENT...
//
// CONFIG is a run's config in TOML: sealkit/data/learn.toml with the alias that learns as `gate.alias`.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { parse } from "smol-toml";

import { connect, type Controller } from "./connect.js";
import { describe, errorOf } from "./errors.js";
import { DocumentState, RunState, type RunStateChanged } from "./gen/seal/controller/v1/resources_pb.js";

const ENDED = [RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.PAUSED];
/** Node reports a connection that was closed in the middle of a stream as one that was cancelled. */
const LOST = [Code.Unavailable, Code.Canceled];

/** Prints every alias with the policy that it points to. */
async function listAliases(controller: Controller): Promise<void> {
  let pageToken = "";
  do {
    const page = await controller.listAliases({ pageToken });
    page.aliases.forEach((alias) => console.log(alias.name, alias.policy));
    pageToken = page.nextPageToken;
  } while (pageToken);
}

/**
 * Starts a run that learns the documents, and returns its name. A request of more than 64 MiB is sent with
 * createRunInParts instead.
 */
async function learn(controller: Controller, config: string, files: string[]): Promise<string> {
  const { run } = await controller.createRun({
    requestId: randomUUID(), // the same id again returns the same run, so a call that failed can be repeated
    config: parse(readFileSync(config, "utf8")) as JsonObject,
    documents: files.map((name) => ({ name, content: readFileSync(name) })),
  });
  return run!.name;
}

/**
 * Prints the events of the run to its end. After a broken stream it continues after the last event; it gives up after
 * ten attempts in a row without an event. Throws the run's own error if the run did not succeed.
 */
async function watch(controller: Controller, name: string): Promise<void> {
  let cursor = "";
  for (let attempts = 1; ; attempts++) {
    let broken = new ConnectError("the stream ended before the run", Code.Unavailable);
    let end: RunStateChanged | undefined;
    try {
      for await (const { event } of controller.watchRun({ name, cursor })) {
        cursor = event!.cursor;
        attempts = 0;
        console.log(name, cursor, event!.progress?.stage ?? "");
        if (event!.kind.case === "runStateChanged" && ENDED.includes(event!.kind.value.state)) {
          end = event!.kind.value;
          break;
        }
      }
    } catch (error) {
      broken = ConnectError.from(error);
    }
    if (end?.state === RunState.SUCCEEDED) return;
    if (end) throw errorOf(end.error, `${name} ended as ${RunState[end.state]}`);
    if (attempts > 10 || !LOST.includes(broken.code)) throw broken;
    await sleep(1000);
  }
}

/** Prints what became of each document. */
async function report(controller: Controller, name: string): Promise<void> {
  const { report } = await controller.getRunReport({ name });
  report!.documents.forEach(({ name, state, reason }) => console.log(name, DocumentState[state], reason));
}

/** Prints the alias's answer as it is sampled. */
async function ask(controller: Controller, alias: string, question: string): Promise<void> {
  const stream = controller.answer({
    alias: `aliases/${alias}`,
    prompt: { user: question },
    sampling: { temperature: 0, topP: 1, maxTokens: 64 },
  });
  for await (const { update } of stream) {
    if (update.case === "delta") process.stdout.write(update.value.text);
  }
  console.log();
}

const [config, alias, question, ...files] = process.argv.slice(2);
if (!config || !alias || !question || !files.length) {
  console.error("usage: learn CONFIG ALIAS QUESTION DOCUMENT...");
  process.exit(2);
}
try {
  const controller = connect();
  await listAliases(controller);
  const run = await learn(controller, config, files);
  await watch(controller, run);
  await report(controller, run);
  await ask(controller, alias, question);
} catch (error) {
  describe(error).forEach((line) => console.error(line));
  process.exit(1);
}
