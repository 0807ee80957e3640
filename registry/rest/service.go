package rest

import (
	"encoding/json"
	"fmt"
	"time"
)

// The bounds of a service.
const (
	MinHeartbeatTimeout = 3 * time.Second
	MaxHeartbeatTimeout = 120 * time.Second
	MaxTags             = 10
	MaxMetadata         = 20
)

// Service is one registered service.
type Service struct {
	// ID names the service within its account: 3 to 65 letters, digits, "_", "-" or ".".
	ID string
	// Tags are at most 10, of 1 to 55 characters each.
	Tags []string
	// Metadata has at most 20 entries; keys and values are of 1 to 255 characters.
	Metadata map[string]string
	// HeartbeatTimeout is how long the service may be silent: whole seconds, 3 to 120.
	HeartbeatTimeout time.Duration
	// LastSeen is the time of the last heartbeat, to the millisecond; zero before the
	// first. The server sets it.
	LastSeen time.Time
}

// wireService is a Service as it travels.
type wireService struct {
	ID               string            `json:"id"`
	Tags             []string          `json:"tags"`
	Metadata         map[string]string `json:"metadata"`
	HeartbeatTimeout int64             `json:"heartbeat_timeout"`
	LastSeen         *int64            `json:"last_seen"`
}

// MarshalJSON writes the service as the API shows it: tags and metadata always present,
// the timeout in seconds, the last heartbeat in milliseconds or null.
func (s Service) MarshalJSON() ([]byte, error) {
	w := wireService{ID: s.ID, Tags: s.Tags, Metadata: s.Metadata, HeartbeatTimeout: wholeSeconds(s.HeartbeatTimeout)}
	if w.Tags == nil {
		w.Tags = []string{}
	}
	if w.Metadata == nil {
		w.Metadata = map[string]string{}
	}
	if !s.LastSeen.IsZero() {
		ms := s.LastSeen.UnixMilli()
		w.LastSeen = &ms
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes. Keys that it does not know are skipped.
func (s *Service) UnmarshalJSON(text []byte) error {
	var w wireService
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	timeout, err := seconds(w.HeartbeatTimeout)
	if err != nil {
		return err
	}
	*s = Service{ID: w.ID, Tags: w.Tags, Metadata: w.Metadata, HeartbeatTimeout: timeout}
	if w.LastSeen != nil {
		s.LastSeen = time.UnixMilli(*w.LastSeen).UTC()
	}
	return nil
}

// seconds reads a heartbeat_timeout; what no duration holds is refused.
func seconds(n int64) (time.Duration, error) {
	const most = int64(1<<63-1) / int64(time.Second)
	if n < 0 || n > most {
		return 0, fmt.Errorf("heartbeat_timeout %d is no number of seconds", n)
	}
	return time.Duration(n) * time.Second, nil
}

// wholeSeconds writes a heartbeat_timeout.
func wholeSeconds(d time.Duration) int64 { return int64(d / time.Second) }

// checkTimeout refuses what the seconds of the API cannot say, and what no server takes.
func checkTimeout(d time.Duration) error {
	if d < MinHeartbeatTimeout || d > MaxHeartbeatTimeout || d%time.Second != 0 {
		return fmt.Errorf("heartbeat timeout %s: want whole seconds, %s to %s", d, MinHeartbeatTimeout, MaxHeartbeatTimeout)
	}
	return nil
}

// ServiceUpdate changes a service in part: what is nil stays as it is. A list or a map
// replaces the old one whole, an empty one empties it.
type ServiceUpdate struct {
	// HeartbeatTimeout takes effect with the next heartbeat; zero leaves it.
	HeartbeatTimeout time.Duration
	Tags             []string
	Metadata         map[string]string
}

// MarshalJSON writes the keys that are to change.
func (u ServiceUpdate) MarshalJSON() ([]byte, error) {
	w := struct {
		Tags             *[]string          `json:"tags,omitempty"`
		Metadata         *map[string]string `json:"metadata,omitempty"`
		HeartbeatTimeout int64              `json:"heartbeat_timeout,omitempty"`
	}{HeartbeatTimeout: wholeSeconds(u.HeartbeatTimeout)}
	if u.Tags != nil {
		w.Tags = &u.Tags
	}
	if u.Metadata != nil {
		w.Metadata = &u.Metadata
	}
	return json.Marshal(w)
}
