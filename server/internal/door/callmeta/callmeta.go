// Package callmeta owns the names under which the parts of a call that are not its
// body travel in HTTP headers and gRPC metadata, and how they are read. It judges only
// their form; what they mean is for the router. It starts no goroutines.
package callmeta

import (
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// The names, lower case. HTTP headers are the same in any case.
const (
	Authorization  = "authorization"
	Service        = "telford-service"
	Namespace      = "telford-namespace" // for the operator, who belongs to none
	RequestID      = "telford-request-id"
	ChainRoot      = "telford-chain-root"
	Chain          = "telford-chain"
	IdempotencyKey = "telford-idempotency-key"
	BusinessKey    = "telford-business-key"
	Instance       = "telford-instance"
	Realm          = "telford-realm"
	Version        = "telford-version"
	Contract       = "telford-contract"
	Attempt        = "telford-attempt"
	Traceparent    = "traceparent"
	Tracestate     = "tracestate"
	// NotStarted is a trailer (gRPC) or header (HTTP) of answers to calls that no
	// handler began.
	NotStarted = "telford-not-started"
)

// maxValue bounds one value of those above, in bytes; the chain may be longer.
const (
	maxValue = 512
	maxChain = message.MaxHeaders
)

// Reserved reports whether a lower-case name belongs to Telford or to the credentials,
// so that it is never handed on as a header of the caller.
func Reserved(name string) bool {
	switch name {
	case Authorization, Traceparent, Tracestate:
		return true
	}
	return strings.HasPrefix(name, "telford-")
}

// Apply fills the parts of call that have a name here from the values that get returns
// for it. A call without a request id is given a random one. An error names the header
// and the value, and is invalid_argument, not started.
func Apply(call *message.Call, get func(name string) []string) *errs.Error {
	one := func(name string, limit int) (string, *errs.Error) {
		values := get(name)
		switch {
		case len(values) == 0:
			return "", nil
		case len(values) > 1:
			return "", invalid(name, strings.Join(values, ", "), "it was given %d times and may be given once", len(values))
		case len(values[0]) > limit:
			return "", invalid(name, values[0], "it has %d bytes and may have %d", len(values[0]), limit)
		case !printable(values[0]):
			return "", invalid(name, values[0], "it holds control characters or is not UTF-8")
		}
		return values[0], nil
	}
	for _, f := range []struct {
		name string
		to   *string
	}{
		{RequestID, &call.RequestID},
		{ChainRoot, &call.ChainRoot},
		{IdempotencyKey, &call.IdempotencyKey},
		{BusinessKey, &call.BusinessKey},
		{Instance, &call.Target.Instance},
		{Realm, &call.Target.Realm},
		{Version, &call.Target.Version},
		{Contract, &call.Target.Contract},
	} {
		v, err := one(f.name, maxValue)
		if err != nil {
			return err
		}
		if v != "" {
			*f.to = v
		}
	}
	if err := contract.Check(call.Target.Contract); err != nil {
		err.Message = "header " + Contract + ": " + err.Message
		return err
	}
	names, err := one(Chain, maxChain)
	if err != nil {
		return err
	}
	if names != "" {
		call.Chain = strings.Split(names, ",")
	}
	attempt, err := one(Attempt, maxValue)
	if err != nil {
		return err
	}
	if attempt != "" {
		n, aerr := strconv.ParseUint(attempt, 10, 31)
		if aerr != nil {
			return invalid(Attempt, attempt, "it must be a number, 0 for the first try")
		}
		call.Attempt = int(n)
	}
	// A trace context that cannot be read starts a new trace, as W3C asks.
	if values := get(Traceparent); len(values) == 1 {
		if t, ok := ParseTraceparent(values[0]); ok {
			t.State = strings.Join(get(Tracestate), ",")
			if len(t.State) > maxValue {
				t.State = ""
			}
			call.Trace = t
		}
	}
	if call.RequestID == "" {
		call.RequestID = uuid.NewString()
	}
	return nil
}

func invalid(name, value, format string, args ...any) *errs.Error {
	if len(value) > 64 {
		value = strings.ToValidUTF8(value[:64], "") + "…"
	}
	e := errs.New(errs.InvalidArgument, format, args...)
	e.Message = "header " + name + " is " + strconv.Quote(value) + ": " + e.Message
	return e.Unstarted()
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// ParseTraceparent reads a W3C traceparent. ok is false for one that is malformed, of
// the forbidden version ff, or all zeroes.
func ParseTraceparent(s string) (t message.Trace, ok bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s != strings.ToLower(s) {
		return t, false
	}
	var version, flags [1]byte
	if _, err := hex.Decode(version[:], []byte(s[:2])); err != nil || version[0] == 0xff {
		return t, false
	}
	// Version 00 ends here; later ones may go on behind another dash.
	if version[0] == 0 && len(s) != 55 || len(s) > 55 && s[55] != '-' {
		return t, false
	}
	_, err1 := hex.Decode(t.TraceID[:], []byte(s[3:35]))
	_, err2 := hex.Decode(t.SpanID[:], []byte(s[36:52]))
	_, err3 := hex.Decode(flags[:], []byte(s[53:55]))
	if err1 != nil || err2 != nil || err3 != nil || !t.Valid() {
		return message.Trace{}, false
	}
	t.Flags = flags[0]
	return t, true
}

// FormatTraceparent is the reverse of ParseTraceparent; "" when there is no context.
func FormatTraceparent(t *message.Trace) string {
	if !t.Valid() {
		return ""
	}
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t.TraceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, t.SpanID[:])
	b = append(b, '-')
	return string(hex.AppendEncode(b, []byte{t.Flags}))
}
