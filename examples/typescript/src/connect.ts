import { readFileSync } from "node:fs";

import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ControllerService } from "./gen/seal/controller/v1/controller_pb.js";

export type Controller = Client<typeof ControllerService>;

/**
 * A client of the controller at SEAL_ADDRESS. With SEAL_TLS_CA, the file of the authority that signed the controller's
 * certificate, it uses TLS, and sends the bearer token in the file SEAL_TOKEN_FILE.
 */
export function connect(): Controller {
  const address = process.env.SEAL_ADDRESS || "127.0.0.1:50050";
  const { SEAL_TLS_CA: ca, SEAL_TOKEN_FILE: tokenFile } = process.env;
  if (!ca) {
    return createClient(ControllerService, createGrpcTransport({ baseUrl: `http://${address}` }));
  }
  const interceptors: Interceptor[] = [];
  if (tokenFile) {
    const token = readFileSync(tokenFile, "utf8").trim();
    interceptors.push((next) => (request) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    });
  }
  const nodeOptions = { ca: readFileSync(ca) };
  return createClient(
    ControllerService,
    createGrpcTransport({ baseUrl: `https://${address}`, nodeOptions, interceptors }),
  );
}
