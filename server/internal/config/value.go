package config

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"telford.dev/telford/internal/errs"
)

// Value is one value as it is now.
type Value struct {
	Namespace string
	ID        string
	// Value is text: UTF-8.
	Value string
	// JSON says that the text is a JSON document.
	JSON bool
	// Revision is that of the namespace which the last change of the value made.
	Revision int64
	// Author is who made it, At when.
	Author string
	At     time.Time
}

// Change is one revision of a value.
type Change struct {
	// Value is the value since the change; with Removed, its text is empty.
	Value
	Removed bool
	// Restored is the revision that the change brought back; 0: it was no rollback.
	Restored int64
}

// Input is what a value is to become.
type Input struct {
	Value string
	JSON  bool
}

// Cond says when a change is made. The zero Cond is always met.
type Cond struct {
	// IfRevision, unless nil, is the revision that the value must have; 0: there must be
	// no value.
	IfRevision *int64
}

// If returns the condition that a value has a revision.
func If(revision int64) Cond { return Cond{IfRevision: &revision} }

// The shape of an id.
const (
	minID = 3
	maxID = 500
)

var validID = regexp.MustCompile(`^(/[A-Za-z0-9_\-]{3,50}/?){0,10}([A-Za-z0-9_\-.]{3,170})?$`)

// CheckID refuses what is no id of a value: names between slashes of 3 to 50 letters,
// digits, "_" and "-", at most ten of them and each behind a slash, then a key of 3 to
// 170 such characters or dots.
func CheckID(id string) error {
	switch {
	case len(id) < minID:
		return errs.New(errs.InvalidArgument, "configuration id %q has %d characters; it needs at least %d", id, len(id), minID)
	case len(id) > maxID:
		return errs.New(errs.InvalidArgument, "configuration id %q has %d bytes, and the most is %d", clip(id), len(id), maxID)
	case validID.MatchString(id):
		return nil
	}
	hint := "a key is 3 to 170 letters, digits, \"_\", \"-\" or \".\"; before it may stand up to ten namespaces of 3 to 50 letters, digits, \"_\" or \"-\", each behind a slash, as in /production/cassandra/seeds"
	if strings.Contains(id, "/") && !strings.HasPrefix(id, "/") && validID.MatchString("/"+id) {
		hint = "an id with namespaces begins with a slash: /" + clip(id)
	}
	return errs.New(errs.InvalidArgument, "configuration id %q: %s", clip(id), hint)
}

// prefixes are the characters of ids; no character of one is behind lastOfID.
var validPrefix = regexp.MustCompile(`^[A-Za-z0-9_\-./]*$`)

const lastOfID = "\x7f"

func checkPrefix(prefix string) error {
	if len(prefix) > maxID || !validPrefix.MatchString(prefix) {
		return errs.New(errs.InvalidArgument, "prefix %q: want at most %d letters, digits, \"_\", \"-\", \".\" and \"/\"", clip(prefix), maxID)
	}
	return nil
}

// check refuses what is no value.
func (in Input) check(maxValue int) error {
	if len(in.Value) > maxValue {
		return errs.New(errs.InvalidArgument, "the value has %d bytes, and the most is %d; keep it where files are kept, and set its address here", len(in.Value), maxValue)
	}
	if !utf8.ValidString(in.Value) {
		return errs.New(errs.InvalidArgument, "the value is not text: byte %d (0x%02x) is not valid UTF-8; set binary data as base64, or convert the text to UTF-8", invalidAt(in.Value), in.Value[invalidAt(in.Value)])
	}
	if in.JSON && !json.Valid([]byte(in.Value)) {
		return errs.New(errs.InvalidArgument, "the value is said to be JSON and is not: %w; correct it, or set it as a string", jsonError(in.Value))
	}
	return nil
}

// invalidAt is where text stops being UTF-8.
func invalidAt(s string) int {
	for i, r := range s {
		if r != utf8.RuneError {
			continue
		}
		if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
			return i
		}
	}
	return len(s) - 1
}

func jsonError(s string) error {
	var v json.RawMessage
	return json.Unmarshal([]byte(s), &v)
}

// clip keeps a value from outside short enough for a message.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	for n := most; n > 0; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n] + "…"
		}
	}
	return "…"
}
