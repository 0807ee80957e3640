package restdoor

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/restreg"
)

// The bounds of what a body says, in UTF-16 units where they are lengths.
const (
	minID, maxID       = 3, 65
	maxTags            = rest.MaxTags
	maxTag             = 55
	maxEntries         = rest.MaxMetadata
	maxEntry           = 255
	minBeat, maxBeat   = 3, 120
	notAString         = "Not a string"
	invalidCharacters  = "Invalid characters"
	immutable          = "Attempted to mutate immutable field"
	keyID, keyTags     = "id", "tags"
	keyMeta, keyBeat   = "metadata", "heartbeat_timeout"
	parameterServiceID = "serviceId"
	parameterValueID   = "configurationId"
)

// length counts UTF-16 units.
func length(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}

func inRange(s string, least, most int) string {
	if n := length(s); n < least || n > most {
		return fmt.Sprintf("String is not in range (%d..%d)", least, most)
	}
	return ""
}

// idChar reports a character of ids. Letters of other alphabets do not fold into it.
func idChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.'
}

// badID says what is wrong with the id of a service, "" if nothing is.
func badID(s string) string {
	if bad := inRange(s, minID, maxID); bad != "" {
		return bad
	}
	for i := range len(s) {
		if !idChar(s[i]) {
			return invalidCharacters
		}
	}
	return ""
}

// newService reads the body of a create.
func newService(body map[string]any) (s restreg.Service, f *rest.Fault) {
	if s.ID, f = bodyID(body); f != nil {
		return s, f
	}
	c, f := change(body)
	switch {
	case f != nil:
		return s, f
	case c.Timeout == nil:
		return s, invalidKey(keyBeat, "Missing required key ("+keyBeat+")")
	}
	s.Timeout = *c.Timeout
	if c.Tags != nil {
		s.Tags = *c.Tags
	}
	if c.Metadata != nil {
		s.Metadata = *c.Metadata
	}
	return s, nil
}

func bodyID(body map[string]any) (string, *rest.Fault) {
	v, ok := body[keyID]
	if !ok {
		return "", invalidKey(keyID, "Missing required key (id)")
	}
	id, ok := v.(string)
	if !ok {
		return "", invalidKey(keyID, notAString)
	}
	if bad := badID(id); bad != "" {
		return "", invalidKey(keyID, bad)
	}
	return id, nil
}

// serviceChange reads the body of an update of a service.
func serviceChange(body map[string]any, id string) (restreg.Change, *rest.Fault) {
	if _, given := body[keyID]; given {
		switch other, f := bodyID(body); {
		case f != nil:
			return restreg.Change{}, f
		case other != id:
			return restreg.Change{}, invalidKey(keyID, immutable)
		}
	}
	return change(body)
}

// change reads what create and update have in common.
func change(body map[string]any) (c restreg.Change, f *rest.Fault) {
	if v, given := body[keyTags]; given {
		tags, bad := readTags(v)
		if bad != "" {
			return c, invalidKey(keyTags, bad)
		}
		c.Tags = &tags
	}
	if v, given := body[keyMeta]; given {
		metadata, bad := readMetadata(v)
		if bad != "" {
			return c, invalidKey(keyMeta, bad)
		}
		c.Metadata = &metadata
	}
	if v, given := body[keyBeat]; given {
		timeout, bad := readTimeout(v)
		if bad != "" {
			return c, invalidKey(keyBeat, bad)
		}
		c.Timeout = &timeout
	}
	return c, nil
}

// items counts what is in a value.
func items(v any) int {
	switch v := v.(type) {
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	return 0
}

func tooMany(v any, most int) string {
	if items(v) > most {
		return fmt.Sprintf("Object needs to have between 0 and %d items", most)
	}
	return ""
}

func readTags(v any) (tags []string, bad string) {
	if v == nil {
		return []string{}, ""
	}
	if bad := tooMany(v, maxTags); bad != "" {
		return nil, bad
	}
	list, ok := v.([]any)
	if !ok {
		return nil, "Not an array"
	}
	tags = make([]string, len(list))
	for i, item := range list {
		if tags[i], ok = item.(string); !ok {
			return nil, notAString
		}
		if bad := inRange(tags[i], 1, maxTag); bad != "" {
			return nil, bad
		}
	}
	return tags, ""
}

func readMetadata(v any) (metadata map[string]string, bad string) {
	if v == nil {
		return map[string]string{}, ""
	}
	if bad := tooMany(v, maxEntries); bad != "" {
		return nil, bad
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, "Not a hash"
	}
	metadata = make(map[string]string, len(object))
	for _, k := range slices.Sorted(maps.Keys(object)) {
		if bad := inRange(k, 1, maxEntry); bad != "" {
			return nil, "Key " + k + ": " + bad
		}
		s, ok := object[k].(string)
		if !ok {
			return nil, "Value for key '" + k + "': " + notAString
		}
		if bad := inRange(s, 1, maxEntry); bad != "" {
			return nil, "Value for key '" + k + "': " + bad
		}
		metadata[k] = s
	}
	return metadata, ""
}

// readTimeout takes whole numbers, and texts that are one.
func readTimeout(v any) (time.Duration, string) {
	const invalid = "Invalid integer"
	var n float64
	var err error
	switch v := v.(type) {
	case json.Number:
		n, err = strconv.ParseFloat(string(v), 64)
	case string:
		whole, fraction, _ := strings.Cut(strings.TrimPrefix(v, "-"), ".")
		if !digits(whole) || strings.Trim(fraction, "0") != "" {
			return 0, invalid
		}
		n, err = strconv.ParseFloat(v, 64)
	default:
		return 0, invalid
	}
	switch {
	case n != math.Trunc(n):
		return 0, invalid
	case err != nil || n < minBeat || n > maxBeat:
		return 0, fmt.Sprintf("Value out of range (%d..%d)", minBeat, maxBeat)
	}
	return time.Duration(n) * time.Second, ""
}
