package rules

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
)

// limitSpec is a limit as it is kept.
type limitSpec struct {
	Service   string        `json:"service,omitempty"`
	Method    string        `json:"method,omitempty"`
	Limit     catalog.Limit `json:"limit"`
	Instances int           `json:"instances,omitempty"`
}

// transportSpec is a transport rule as it is kept.
type transportSpec struct {
	Service  string        `json:"service,omitempty"`
	Method   string        `json:"method,omitempty"`
	Mode     string        `json:"mode,omitempty"`
	Fallback string        `json:"fallback,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"` // nanoseconds
}

func policyID(r *policy.Rule) string       { return r.ID }
func capabilityID(p *policy.Pair) string   { return p.Service + "/" + string(p.Action) }
func limitID(r *limit.Rule) string         { return r.ID }
func transportID(r *transport.Rule) string { return r.ID }

// policyTarget is the same for rules that say the same, whether enforced or not.
func policyTarget(r *policy.Rule) string {
	target := r.Target
	if target == "#" && (r.Action == policy.Publish || r.Action == policy.HandleEvent) {
		target = "" // any topic; "*" is one word
	} else if target == "*" && r.Action != policy.Publish && r.Action != policy.HandleEvent {
		target = ""
	}
	peer := r.Peer
	if peer == "*" {
		peer = ""
	}
	return strings.Join([]string{r.Service, string(r.Action), string(r.Effect), peer, target}, " ")
}

// subject is the target of a rule about a method of a service, either of which may be
// empty.
func subject(service, method string) string { return service + "/" + method }

func policyFrom(row *Row) (r policy.Rule, err error) {
	err = decode(row, &r)
	r.ID = row.ID
	return r, err
}

func capabilityFrom(row *Row) (p policy.Pair, err error) {
	err = decode(row, &p)
	return p, err
}

func limitFrom(row *Row) (limit.Rule, error) {
	var s limitSpec
	err := decode(row, &s)
	return limit.Rule{ID: row.ID, Service: s.Service, Method: s.Method, Limit: s.Limit, Instances: s.Instances}, err
}

func transportFrom(row *Row) (transport.Rule, error) {
	var s transportSpec
	err := decode(row, &s)
	return transport.Rule{ID: row.ID, Service: s.Service, Method: s.Method, Mode: s.Mode, Fallback: s.Fallback, Timeout: s.Timeout}, err
}

// decode reads the spec of a row. One that cannot be read is an error: to leave a rule
// out could allow what it denies.
func decode(row *Row, spec any) error {
	if err := json.Unmarshal(row.Spec, spec); err != nil {
		return fmt.Errorf("the %s rule %s of namespace %s cannot be read: %w; restore the database from a backup, or delete that row of the table rules",
			row.Kind, cmp.Or(row.ID, "without an id"), row.Namespace, err)
	}
	return nil
}
