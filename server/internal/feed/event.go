package feed

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"telford.dev/telford/internal/errs"
)

// The types of the events that clients of the service registry know. Types of our own
// begin with OwnPrefix.
const (
	ServiceJoin    = "service.join"
	ServiceRemove  = "service.remove"
	ServiceTimeout = "service.timeout"
	ConfigUpdate   = "configuration_value.update"
	ConfigRemove   = "configuration_value.remove"

	OwnPrefix = "telford."
)

// Types returns the types without OwnPrefix, in the order in which they are told.
func Types() []string {
	return []string{ServiceJoin, ServiceRemove, ServiceTimeout, ConfigUpdate, ConfigRemove}
}

const (
	maxType    = 100     // bytes of a type
	maxPayload = 8 << 20 // bytes of a payload: two values of 1 MiB, escaped
)

// Service is the payload of ServiceJoin, ServiceRemove and ServiceTimeout; of the latter
// two it tells the state before.
type Service struct {
	ID string `json:"id"`
	// HeartbeatTimeout is in seconds.
	HeartbeatTimeout int               `json:"heartbeat_timeout"`
	Tags             []string          `json:"tags"`
	Metadata         map[string]string `json:"metadata"`
}

// ConfigUpdated is the payload of ConfigUpdate. OldValue is nil when there was none.
type ConfigUpdated struct {
	OldValue *string `json:"old_value"`
	NewValue string  `json:"new_value"`
	ID       string  `json:"configuration_value_id"`
}

// ConfigRemoved is the payload of ConfigRemove.
type ConfigRemoved struct {
	OldValue string `json:"old_value"`
	ID       string `json:"configuration_value_id"`
}

// New is an event that is to be appended.
type New struct {
	Namespace string
	Type      string
	// Payload is encoded as JSON and must give an object: one of the structs of this
	// package or, for a type of our own, any.
	Payload any
	// ID, unless zero, is the id of the event. It may be one of the past, for what was due
	// then and is noticed now. Zero: the next one of the namespace.
	ID ID
}

// Event is what happened.
type Event struct {
	// ID is a UUID of version 1 in lower case: see ID. In a namespace it is unique.
	ID        string
	Namespace string
	// At is the time in the id.
	At   time.Time
	Type string
	// Payload is a JSON object.
	Payload json.RawMessage
}

// encode checks an event and returns its payload.
func (n *New) encode() ([]byte, error) {
	if err := CheckType(n.Type); err != nil {
		return nil, err
	}
	payload := n.Payload
	if s, ok := payload.(Service); ok {
		if s.Tags == nil {
			s.Tags = []string{}
		}
		if s.Metadata == nil {
			s.Metadata = map[string]string{}
		}
		payload = s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(payload); err != nil {
		return nil, errs.New(errs.InvalidArgument, "event %s: encode the payload: %w", n.Type, err)
	}
	text := bytes.TrimRight(b.Bytes(), "\n")
	switch {
	case len(text) == 0 || text[0] != '{':
		return nil, errs.New(errs.InvalidArgument, "event %s: the payload is no JSON object but %s", n.Type, clip(string(text)))
	case len(text) > maxPayload:
		return nil, errs.New(errs.InvalidArgument, "event %s: the payload has %d bytes, and the most is %d", n.Type, len(text), maxPayload)
	}
	return text, nil
}

// CheckType refuses what is no type of an event: neither one of Types nor a name that
// begins with OwnPrefix.
func CheckType(s string) error {
	for _, known := range Types() {
		if s == known {
			return nil
		}
	}
	own := strings.HasPrefix(s, OwnPrefix) && len(s) > len(OwnPrefix) && len(s) <= maxType
	for i := 0; own && i < len(s); i++ {
		c := s[i]
		own = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_'
	}
	if own {
		return nil
	}
	return errs.New(errs.InvalidArgument, "%q is no type of an event; there are %s, and names that begin with %q in small letters, digits, dots and underscores",
		clip(s), strings.Join(Types(), ", "), OwnPrefix)
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
