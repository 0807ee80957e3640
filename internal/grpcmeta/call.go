package grpcmeta

import (
	"encoding/hex"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/message"
)

// The names of what travels with a call on plain gRPC besides its headers.
const (
	RequestID   = "telford-request-id"
	ChainRoot   = "telford-chain-root"
	Chain       = "telford-chain"
	Attempt     = "telford-attempt"
	Idempotency = "telford-idempotency-key"
	Contract    = "telford-contract"
	Business    = "telford-business-key"
	Traceparent = "traceparent"
	Tracestate  = "tracestate"
)

// maxValue bounds what is read from one value.
const maxValue = 512

// Write adds to md what travels with call besides its headers.
func Write(md metadata.MD, call *message.Call) {
	set := func(name, value string) {
		if value != "" {
			md[name] = []string{value}
		}
	}
	set(RequestID, call.RequestID)
	set(ChainRoot, call.ChainRoot)
	set(Chain, strings.Join(call.Chain, ","))
	set(Idempotency, call.IdempotencyKey)
	set(Contract, call.Target.Contract)
	set(Business, call.BusinessKey)
	if call.Attempt > 0 {
		set(Attempt, strconv.Itoa(call.Attempt))
	}
	if call.Trace.Valid() {
		set(Traceparent, "00-"+hex.EncodeToString(call.Trace.TraceID[:])+"-"+hex.EncodeToString(call.Trace.SpanID[:])+"-"+hex.EncodeToString([]byte{call.Trace.Flags}))
		set(Tracestate, call.Trace.State)
	}
}

// Read fills call from what a plain gRPC caller sent. What cannot be read is left out:
// none of it decides whether the call is served.
func Read(md metadata.MD, call *message.Call) {
	get := func(name string, limit int) string {
		if v := md[name]; len(v) == 1 && len(v[0]) <= limit {
			return v[0]
		}
		return ""
	}
	call.RequestID = get(RequestID, maxValue)
	call.ChainRoot = get(ChainRoot, maxValue)
	call.Target.Contract = get(Contract, maxValue)
	call.IdempotencyKey = get(Idempotency, message.MaxKey)
	call.BusinessKey = get(Business, message.MaxKey)
	if names := get(Chain, message.MaxHeaders); names != "" {
		call.Chain = strings.Split(names, ",")
	}
	if n, err := strconv.ParseUint(get(Attempt, 10), 10, 31); err == nil {
		call.Attempt = int(n)
	}
	if t, ok := parseTrace(get(Traceparent, maxValue)); ok {
		call.Trace = t
		call.Trace.State = get(Tracestate, maxValue)
	}
	for k, values := range md {
		if Reserved(k) {
			continue
		}
		for _, v := range values {
			call.Headers = append(call.Headers, message.Pair{Key: k, Value: []byte(v)})
		}
	}
}

// parseTrace reads a W3C traceparent; false for one that is malformed.
func parseTrace(s string) (t message.Trace, ok bool) {
	parts := strings.Split(s, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 || s != strings.ToLower(s) {
		return t, false
	}
	var flags [1]byte
	for _, p := range []struct {
		to   []byte
		text string
	}{{t.TraceID[:], parts[1]}, {t.SpanID[:], parts[2]}, {flags[:], parts[3]}} {
		if _, err := hex.Decode(p.to, []byte(p.text)); err != nil {
			return message.Trace{}, false
		}
	}
	t.Flags = flags[0]
	return t, t.Valid()
}
