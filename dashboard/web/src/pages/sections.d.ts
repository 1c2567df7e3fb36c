interface Reader {
  ask: (path: string, query?: object) => Promise<unknown>;
  act: (path: string, body: unknown) => Promise<unknown>;
  me: unknown;
  travelling: boolean;
}
export const SECTIONS: Record<"value" | "gap" | "recognition" | "health" | "integrations", (place: HTMLElement, reader: Reader) => Promise<void>>;
