// Package limit owns how much may run: the token bucket, the bound on what runs at once
// with its line of those who wait, both also counted apart by a key, and the rules that
// operators lay down. It does no I/O, reads the time from the clock it is given, and
// starts no goroutines: whoever waits does so on the goroutine of its caller.
package limit

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// MaxInstances bounds the quota of instances.
const MaxInstances = 10_000_000

// Rule is what an operator has laid down: in place of what a method declares, in place
// of the bounds of an instance where Method is empty, as the quota of a namespace where
// Service is empty too.
type Rule struct {
	ID      string
	Service string
	Method  string
	Limit   catalog.Limit
	// Instances is, in a quota, the most instances that are registered at once; 0 means
	// any number.
	Instances int
}

// Quota reports whether r is about a whole namespace.
func (r *Rule) Quota() bool { return r.Service == "" }

// Subject names what r is about: "namespace", "payments" or "payments/charge".
func (r *Rule) Subject() string {
	switch {
	case r.Service == "":
		return "namespace"
	case r.Method == "":
		return r.Service
	}
	return r.Service + "/" + r.Method
}

// Validate returns an invalid_argument that lists everything that is wrong with r. The ID
// is not looked at.
func (r *Rule) Validate() error {
	var bad []string
	if r.Service != "" && !catalog.ValidName(r.Service) {
		bad = append(bad, "service "+quote(r.Service)+" is not the name of a service")
	}
	if r.Method != "" && !catalog.ValidMethod(r.Method) {
		bad = append(bad, "method "+quote(r.Method)+" is not the name of a method")
	}
	if r.Service == "" && r.Method != "" {
		bad = append(bad, "method "+quote(r.Method)+" is given without its service")
	}
	if r.Instances < 0 || r.Instances > MaxInstances {
		bad = append(bad, "instances "+itoa(r.Instances)+" is not between 0 and "+itoa(MaxInstances))
	}
	if r.Service != "" && r.Instances != 0 {
		bad = append(bad, "instances is a quota of the namespace; leave the service out")
	}
	if !r.Quota() || r.Instances == 0 || r.Limit != (catalog.Limit{}) {
		bad = append(bad, r.Limit.Problems()...)
	}
	if r.Method == "" && (r.Limit.Key == catalog.KeyFunc || strings.HasPrefix(r.Limit.Key, catalog.KeyField)) {
		bad = append(bad, "key "+quote(r.Limit.Key)+" means something for one method only; name the method")
	}
	if r.Quota() && r.Limit.Scope == catalog.LimitService {
		bad = append(bad, "scope "+quote(r.Limit.Scope)+" means nothing in a quota of the namespace")
	}
	if len(bad) == 0 {
		return nil
	}
	return errs.New(errs.InvalidArgument, "limit of %s: %s", r.Subject(), strings.Join(slices.Compact(bad), "; "))
}
