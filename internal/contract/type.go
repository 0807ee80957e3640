package contract

import (
	"strings"

	"telford.dev/telford/internal/errs"
)

// maxLength bounds a contract, in bytes.
const maxLength = 256

// Type returns what stands before the colon, "pb" or "js": contracts of different types
// say nothing about each other. "" is the type of no contract.
func Type(contract string) string {
	t, _, _ := strings.Cut(contract, ":")
	return t
}

// Check refuses a text that cannot be a contract, with invalid_argument. The empty text
// is none, and none is fine. A type that is not known here passes: it is one that nobody
// has.
func Check(text string) *errs.Error {
	if text == "" {
		return nil
	}
	kind, hash, typed := strings.Cut(text, ":")
	if len(text) > maxLength || !typed || kind == "" || hash == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		if len(text) > 64 {
			text = strings.ToValidUTF8(text[:64], "") + "…"
		}
		return errs.New(errs.InvalidArgument, "%q is no contract: it is a type, a colon and a hash, such as pb:3f2a… (from protobuf descriptors) or js:9c01… (from JSON Schemas); "+
			"telford services get lists those of a service", text).Unstarted()
	}
	return nil
}
