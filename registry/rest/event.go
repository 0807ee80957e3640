package rest

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventType says what happened.
type EventType string

// The types of the feed.
const (
	ServiceJoin         EventType = "service.join"
	ServiceRemove       EventType = "service.remove"
	ServiceTimeout      EventType = "service.timeout"
	ConfigurationUpdate EventType = "configuration_value.update"
	ConfigurationRemove EventType = "configuration_value.remove"
)

// EventTypes returns every type of the feed, in the order that faults list them.
func EventTypes() []EventType {
	return []EventType{ServiceJoin, ServiceTimeout, ServiceRemove, ConfigurationUpdate, ConfigurationRemove}
}

// Event is one entry of an account's feed.
type Event struct {
	// ID is a version 1 UUID; the feed ascends by its time.
	ID string
	// Time is when it happened, to the millisecond: of a timeout, when the heartbeat was
	// due.
	Time time.Time
	Type EventType
	// Payload is a JSON object. Service and Configuration read it.
	Payload json.RawMessage
}

type wireEvent struct {
	ID        string          `json:"id"`
	Timestamp int64           `json:"timestamp"`
	Type      EventType       `json:"type"`
	Payload   json.RawMessage `json:"payload"`
}

// MarshalJSON writes the event as the API shows it, the time in milliseconds.
func (e Event) MarshalJSON() ([]byte, error) {
	w := wireEvent{ID: e.ID, Timestamp: e.Time.UnixMilli(), Type: e.Type, Payload: e.Payload}
	if w.Payload == nil {
		w.Payload = json.RawMessage("{}")
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Event) UnmarshalJSON(text []byte) error {
	var w wireEvent
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*e = Event{ID: w.ID, Time: time.UnixMilli(w.Timestamp).UTC(), Type: w.Type, Payload: w.Payload}
	return nil
}

// Service returns the service of an event about one, as it was.
func (e Event) Service() (Service, error) {
	switch e.Type {
	case ServiceJoin, ServiceRemove, ServiceTimeout:
	default:
		return Service{}, fmt.Errorf("event %s of type %q is not about a service", e.ID, e.Type)
	}
	var s Service
	if err := json.Unmarshal(e.Payload, &s); err != nil {
		return Service{}, fmt.Errorf("read the payload of event %s: %w", e.ID, err)
	}
	return s, nil
}

// ServicePayload writes the payload of an event about s: its state without the time of
// the last heartbeat.
func ServicePayload(s Service) (json.RawMessage, error) {
	w := struct {
		ID               string            `json:"id"`
		HeartbeatTimeout int64             `json:"heartbeat_timeout"`
		Tags             []string          `json:"tags"`
		Metadata         map[string]string `json:"metadata"`
	}{s.ID, wholeSeconds(s.HeartbeatTimeout), s.Tags, s.Metadata}
	if w.Tags == nil {
		w.Tags = []string{}
	}
	if w.Metadata == nil {
		w.Metadata = map[string]string{}
	}
	return json.Marshal(w)
}

// ConfigurationChange is what an event says about a configuration value.
type ConfigurationChange struct {
	ID string
	// Old is the value before, nil when there was none.
	Old *string
	// New is the value from now on, nil when it was removed.
	New *string
}

// Configuration returns the change of an event about a configuration value.
func (e Event) Configuration() (ConfigurationChange, error) {
	if e.Type != ConfigurationUpdate && e.Type != ConfigurationRemove {
		return ConfigurationChange{}, fmt.Errorf("event %s of type %q is not about a configuration value", e.ID, e.Type)
	}
	var w struct {
		Old *string `json:"old_value"`
		New *string `json:"new_value"`
		ID  string  `json:"configuration_value_id"`
	}
	if err := json.Unmarshal(e.Payload, &w); err != nil {
		return ConfigurationChange{}, fmt.Errorf("read the payload of event %s: %w", e.ID, err)
	}
	if w.ID == "" {
		return ConfigurationChange{}, fmt.Errorf("event %s names no configuration value", e.ID)
	}
	if e.Type == ConfigurationUpdate && w.New == nil {
		return ConfigurationChange{}, fmt.Errorf("event %s updates %s without a new value", e.ID, w.ID)
	}
	if e.Type == ConfigurationRemove {
		w.New = nil
	}
	return ConfigurationChange{ID: w.ID, Old: w.Old, New: w.New}, nil
}

// UpdatePayload writes the payload of a configuration_value.update; old is nil for a
// new value.
func UpdatePayload(id string, old *string, value string) (json.RawMessage, error) {
	return json.Marshal(struct {
		Old *string `json:"old_value"`
		New string  `json:"new_value"`
		ID  string  `json:"configuration_value_id"`
	}{old, value, id})
}

// RemovePayload writes the payload of a configuration_value.remove.
func RemovePayload(id, old string) (json.RawMessage, error) {
	return json.Marshal(struct {
		Old string `json:"old_value"`
		ID  string `json:"configuration_value_id"`
	}{old, id})
}
