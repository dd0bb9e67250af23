import { Code, ConnectError } from "@connectrpc/connect";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";

/** A recorded error as the one that a call would throw; without one, an error with this message. */
export function errorOf(status: Status | undefined, message: string): Error {
  if (!status) return new Error(message);
  const error = new ConnectError(status.message, status.code);
  error.details = status.details.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").pop()!, value }));
  return error;
}

/**
 * The lines that describe an error. For one that a call returned: the stable reason with its metadata, every faulty
 * field or used up quota, and after how long to try again.
 */
export function describe(error: unknown): string[] {
  if (!(error instanceof ConnectError)) return [String(error)];
  const lines = [`${Code[error.code]}: ${error.rawMessage}`];
  for (const info of error.findDetails(ErrorInfoSchema)) {
    lines.push(`reason ${info.reason}`, ...Object.entries(info.metadata).map(([key, value]) => `${key} ${value}`));
  }
  for (const { fieldViolations } of error.findDetails(BadRequestSchema)) {
    lines.push(...fieldViolations.map(({ field, description }) => `field ${field}: ${description}`));
  }
  for (const { violations } of error.findDetails(QuotaFailureSchema)) {
    lines.push(...violations.map(({ subject, description }) => `quota ${subject}: ${description}`));
  }
  for (const { retryDelay } of error.findDetails(RetryInfoSchema)) {
    lines.push(`try again after ${Number(retryDelay?.seconds ?? 0) + (retryDelay?.nanos ?? 0) / 1e9}s`);
  }
  return lines;
}
