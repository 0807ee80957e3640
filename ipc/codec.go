package ipc

import (
	"encoding/json"

	"telford.dev/telford/internal/ipcwire"
)

// Encode returns v as one frame, with its length in front. Types are encoded as
// encoding/json does, in msgpack too. A body over MaxFrame is refused.
func Encode(v any, enc Serializer) ([]byte, error) {
	body, err := encodeValue(v, enc)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxFrame {
		return nil, Errorf(CodeSerializationFailed, "Failed to serialize message: it has %d bytes, the limit is %d", len(body), MaxFrame)
	}
	return ipcwire.AppendFrame(nil, body), nil
}

// Decode fills v from a body, without the length in front of it. The encoding is told by
// how it begins.
func Decode(body []byte, v any) error {
	enc := ipcwire.Detect(body)
	var e ipcwire.Envelope
	if err := e.Scan(body, enc); err != nil {
		return Errorf(CodeDeserializationFailed, "Failed to deserialize message: %w", err)
	}
	return decodeValue(body, enc, v)
}

// PeekLength returns the length of the body that the frame at the start of b announces,
// and whether b holds enough to say.
func PeekLength(b []byte) (n int, ok bool) { return ipcwire.PeekLength(b) }

// Complete reports whether b begins with a whole frame.
func Complete(b []byte) bool {
	n, ok := ipcwire.PeekLength(b)
	return ok && len(b) >= ipcwire.HeaderSize+n
}

// Split returns the bodies of all whole frames in b, and the rest behind them. A length
// over MaxFrame is refused.
func Split(b []byte) (bodies [][]byte, rest []byte, err error) {
	bodies, rest, err = ipcwire.Split(b, MaxFrame)
	if err != nil {
		return bodies, rest, Errorf(CodeDeserializationFailed, "Failed to deserialize message: %w", err)
	}
	return bodies, rest, nil
}

func encodeValue(v any, enc Serializer) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, Errorf(CodeSerializationFailed, "Failed to serialize message: %w", err)
	}
	if enc == JSON {
		return text, nil
	}
	packed, err := ipcwire.Transcode(make([]byte, 0, len(text)+8), text, JSON, ipcwire.BlobsAsBase64)
	if err != nil {
		return nil, Errorf(CodeSerializationFailed, "Failed to serialize message: %w", err)
	}
	return packed, nil
}

// asJSON is raw, which may be nil, as JSON; the result may share its memory.
func asJSON(raw []byte, enc Serializer) (json.RawMessage, error) {
	if enc == JSON || raw == nil {
		return raw, nil
	}
	text, err := ipcwire.Transcode(make([]byte, 0, 2*len(raw)), raw, enc, ipcwire.BlobsAsBase64)
	if err != nil {
		return nil, Errorf(CodeDeserializationFailed, "Failed to deserialize message: %w", err)
	}
	return text, nil
}

func decodeValue(raw []byte, enc Serializer, v any) error {
	text, err := asJSON(raw, enc)
	if err != nil {
		return err
	}
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return Errorf(CodeDeserializationFailed, "Failed to deserialize message: %w", err)
	}
	return nil
}
