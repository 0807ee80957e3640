// Package grpcmeta owns the passage between gRPC metadata and the headers of a
// message. Keys that gRPC or Telford reserve do not pass. It starts no goroutines.
package grpcmeta

import (
	"sort"
	"strings"

	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Reserved reports whether key belongs to a transport: users neither send nor see it.
func Reserved(key string) bool {
	switch key {
	case "content-type", "user-agent", "te", "trailer", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding",
		"grpc-message", "grpc-status", "grpc-status-details-bin", "grpc-message-type", "grpc-previous-rpc-attempts",
		"grpc-retry-pushback-ms", "traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(key, ":") || strings.HasPrefix(key, "telford-")
}

// Append appends md to pairs, keys in order, values in theirs. Reserved keys are left
// out; a key or value that no transport could carry is an error.
func Append(pairs []message.Pair, md metadata.MD) ([]message.Pair, error) {
	if len(md) == 0 {
		return pairs, nil
	}
	if len(md) == 1 {
		for k, vs := range md {
			return appendKey(pairs, k, vs)
		}
	}
	keys := make([]string, 0, len(md))
	for k := range md {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return strings.ToLower(keys[i]) < strings.ToLower(keys[j]) })
	var err error
	for _, k := range keys {
		if pairs, err = appendKey(pairs, k, md[k]); err != nil {
			return pairs, err
		}
	}
	return pairs, nil
}

func appendKey(pairs []message.Pair, key string, values []string) ([]message.Pair, error) {
	key = strings.ToLower(key)
	if Reserved(key) {
		return pairs, nil
	}
	if err := CheckKey(key); err != nil {
		return pairs, err
	}
	for _, v := range values {
		if !strings.HasSuffix(key, "-bin") && !printable(v) {
			return pairs, errs.New(errs.Internal, "header key %q contains value with non-printable ASCII characters; end the key with -bin to send bytes", key).Unstarted()
		}
		pairs = append(pairs, message.Pair{Key: key, Value: []byte(v)})
	}
	return pairs, nil
}

// CheckKey refuses a key, already in lower case, that gRPC would not carry.
func CheckKey(key string) error {
	if key == "" {
		return errs.New(errs.Internal, "there is an empty key in the header").Unstarted()
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return errs.New(errs.Internal, "header key %q contains illegal characters not in [0-9a-z-_.]", key).Unstarted()
		}
	}
	return nil
}

func printable(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return false
		}
	}
	return true
}

// MD returns pairs as metadata, never nil.
func MD(pairs []message.Pair) metadata.MD {
	md := make(metadata.MD, len(pairs))
	for i := range pairs {
		md[pairs[i].Key] = append(md[pairs[i].Key], string(pairs[i].Value))
	}
	return md
}
