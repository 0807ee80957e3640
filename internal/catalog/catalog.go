// Package catalog owns the description of what runs: an instance, what it declares
// of itself and may declare, and why it went. The registry keeps these, the SDK watches
// them. It starts no goroutines and does no I/O.
package catalog

import "time"

// Status is the health of an instance.
type Status string

// The statuses. OK and WARNING receive calls; OFFLINE is not even visible.
const (
	OK        Status = "OK"
	Warning   Status = "WARNING"
	Error     Status = "ERROR"
	Suspended Status = "SUSPENDED"
	Offline   Status = "OFFLINE"
)

// Receives reports whether an instance of this status is given calls.
func (s Status) Receives() bool { return s == OK || s == Warning }

// Known reports whether s is one of the statuses.
func (s Status) Known() bool {
	switch s {
	case OK, Warning, Error, Suspended, Offline:
		return true
	}
	return false
}

// Kind is the shape of a method.
type Kind string

// The kinds.
const (
	Unary        Kind = "unary"
	ServerStream Kind = "server_stream"
)

// Scope says who sees an instance.
type Scope string

// The scopes.
const (
	ScopeZone   Scope = "zone"
	ScopeGlobal Scope = "global"
)

// Method is one thing that an instance can be asked to do.
type Method struct {
	Name          string   `json:"name"`
	Kind          Kind     `json:"kind"`
	Contract      string   `json:"contract,omitempty"`
	ContentTypes  []string `json:"content_types,omitempty"`
	InputMessage  string   `json:"input_message,omitempty"`
	OutputMessage string   `json:"output_message,omitempty"`
	InputSchema   string   `json:"input_schema,omitempty"`
	OutputSchema  string   `json:"output_schema,omitempty"`
	Description   string   `json:"description,omitempty"`
	// AllowedCallers are the services that may call it, beside what policy says; empty
	// means all.
	AllowedCallers []string `json:"allowed_callers,omitempty"`
	// Timeout is the longest that one run takes; 0: as long as the caller waits.
	Timeout time.Duration `json:"timeout,omitempty"`
	// NotRetryable: never to be run again, not even with an idempotency key.
	NotRetryable bool    `json:"not_retryable,omitempty"`
	Limits       []Limit `json:"limits,omitempty"`
}

// Limit bounds how much of a method runs. Fields that are 0 do not bind.
type Limit struct {
	// Concurrency is how many run at once, Queue how many more wait for their turn.
	Concurrency int `json:"concurrency,omitempty"`
	Queue       int `json:"queue,omitempty"`
	// Rate is how many begin in a second, Burst how many of them at once after a pause.
	Rate  float64 `json:"rate,omitempty"`
	Burst int     `json:"burst,omitempty"`
	// Key says what is counted apart: "" (all together), "caller", "header:NAME",
	// "field:NAME" or "func".
	Key string `json:"key,omitempty"`
	// Scope is "instance" (also when empty) or "service": divided among its live
	// instances.
	Scope string `json:"scope,omitempty"`
}

// Endpoint is an address where an instance can be called directly.
type Endpoint struct {
	Kind string `json:"kind"` // "link" or "http"
	Host string `json:"host"`
	Port int    `json:"port"`
}

// MenuItem is an entry that a service offers to the console.
type MenuItem struct {
	ID    string   `json:"id"`
	Label string   `json:"label"`
	Kind  string   `json:"kind"` // LINK, IFRAME or MODAL
	Path  string   `json:"path"`
	Icon  string   `json:"icon,omitempty"`
	Order int      `json:"order,omitempty"`
	Roles []string `json:"roles,omitempty"`
}

// Dependency is an outgoing declaration.
type Dependency struct {
	Kind   string   `json:"kind"`   // "rpc", "workflow" or "event"
	Target string   `json:"target"` // the service, or the topic
	Names  []string `json:"names,omitempty"`
}

// Declaration is all that an instance says about itself.
type Declaration struct {
	Service            string            `json:"service"`
	Realm              string            `json:"realm"`
	Version            string            `json:"version,omitempty"`
	CompatibleVersions []string          `json:"compatible_versions,omitempty"`
	Methods            []Method          `json:"methods,omitempty"`
	Endpoints          []Endpoint        `json:"endpoints,omitempty"`
	Tags               []string          `json:"tags,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	Capabilities       []string          `json:"capabilities,omitempty"`
	Menu               []MenuItem        `json:"menu,omitempty"`
	Scope              Scope             `json:"scope,omitempty"`
	Locality           string            `json:"locality,omitempty"`
	Weight             int               `json:"weight,omitempty"`
	TTL                time.Duration     `json:"ttl,omitempty"`
	Dependencies       []Dependency      `json:"dependencies,omitempty"`
	Descriptors        []byte            `json:"descriptors,omitempty"`
	Status             Status            `json:"status"`
	StatusMessage      string            `json:"status_message,omitempty"`
	SDK                string            `json:"sdk,omitempty"`
}

// Instance is one running process of a service. Holders share it; nobody changes one
// after it was published.
type Instance struct {
	Namespace   string      `json:"namespace"`
	ID          string      `json:"id"`
	Declaration Declaration `json:"declaration"`
	// Reachable: a live session exists, so that the runtime can deliver to it.
	Reachable bool `json:"reachable"`
	// Draining: finish what runs, take nothing new.
	Draining   bool      `json:"draining,omitempty"`
	Registered time.Time `json:"registered"`
	Revision   int64     `json:"revision"`
	KeyID      string    `json:"key_id,omitempty"`
	Door       string    `json:"door"`
	Zone       string    `json:"zone,omitempty"`
	// FailingUntil: others have found it failing; better not picked before.
	FailingUntil time.Time `json:"failing_until,omitzero"`
}

// Reason says why an instance went.
type Reason string

// The reasons.
const (
	Expired      Reason = "expired"
	Deregistered Reason = "deregistered"
	Drained      Reason = "drained"
	Revoked      Reason = "revoked"
	Operator     Reason = "operator"
	Replaced     Reason = "replaced"
)

// Final reports whether r is a reason to be gone for good.
func (r Reason) Final() bool {
	switch r {
	case Expired, Deregistered, Drained, Revoked, Operator, Replaced:
		return true
	}
	return false
}

// The reasons of removals that are only a watcher's: the instance is still
// registered, and there is no tombstone of it.
const (
	WentOffline Reason = "offline"   // its status became OFFLINE
	Unwatched   Reason = "unwatched" // the watcher gave its service up
)

// Tombstone says that an instance is gone, and why.
type Tombstone struct {
	Namespace string    `json:"namespace"`
	ID        string    `json:"id"`
	Service   string    `json:"service"`
	Reason    Reason    `json:"reason"`
	At        time.Time `json:"at"`
}

// Revision is a point in the history of a registry. Those of different epochs cannot
// be compared.
type Revision struct {
	Epoch uint64 `json:"epoch"`
	N     uint64 `json:"n"`
}

// Update is one step of a watch: a snapshot replaces all that was known, a delta
// changes it. Removals may name instances that were never seen.
type Update struct {
	Snapshot bool
	// Revision is where a watch may be resumed after this update. A large step comes
	// in parts, which Parts puts together; all but the last have a zero Revision, after
	// which a resumed watch begins with a snapshot.
	Revision Revision
	// Upserts carry no Declaration.Descriptors.
	Upserts  []*Instance
	Removals []Tombstone
}

// DeclarationWarning says that a part of a declaration will not have its full effect.
type DeclarationWarning struct {
	Declaration string `json:"declaration"` // the field: "endpoints", "tags", "methods"
	Value       string `json:"value"`
	// Side is "capability", "self_egress", "self_acceptance", "peer_acceptance", or
	// "declaration" where no policy is involved.
	Side   string `json:"side"`
	Reason string `json:"reason"`
}
