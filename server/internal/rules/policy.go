package rules

import (
	"context"
	"slices"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/policy"
)

const listPolicy = "telford policy show"

// AddRule lays down a rule of the policy; its id is given here. invalid_argument says
// what is wrong with it; already_exists names the rule that says the same;
// resource_exhausted names the limit of the namespace.
func (r *Rules) AddRule(ctx context.Context, namespace string, rule policy.Rule, author string) (Stored[policy.Rule], error) {
	const operation = "add a policy rule"
	if err := rule.Validate(); err != nil {
		return Stored[policy.Rule]{}, storageError(operation, err)
	}
	rule.ID = r.ids.New("pol", r.cfg.Clock.Now())
	target := policyTarget(&rule)
	var out Stored[policy.Rule]
	err := r.change(ctx, operation, namespace, func(now *snapshot) (*edit, error) {
		for i := range now.policy {
			if old := &now.policy[i].Rule; policyTarget(old) == target {
				return nil, exists(old, &rule)
			}
		}
		if err := r.room(namespace, now); err != nil {
			return nil, err
		}
		row, err := r.row(namespace, kindPolicy, rule.ID, target, &rule, 0, author)
		if err != nil {
			return nil, err
		}
		out = stored(rule, row)
		return &edit{put: []*Row{row}}, nil
	})
	if err != nil {
		return Stored[policy.Rule]{}, err
	}
	r.log.Info("policy rule added", "namespace", namespace, "rule", rule.ID, "service", rule.Service, "action", rule.Action,
		"effect", rule.Effect, "peer", rule.Peer, "target", rule.Target, "shadow", rule.Shadow, "author", author)
	return out, nil
}

func exists(old, rule *policy.Rule) error {
	e := errs.New(errs.AlreadyExists, "rule %s says the same already", old.ID)
	switch {
	case old.Shadow && !rule.Shadow:
		e = errs.New(errs.AlreadyExists, "rule %s says the same already and is only counted; to enforce it: telford policy shadow off %s", old.ID, old.ID)
	case !old.Shadow && rule.Shadow:
		e = errs.New(errs.AlreadyExists, "rule %s says the same already and is enforced; to only count it: telford policy shadow on %s", old.ID, old.ID)
	}
	return e.With("rule", old.ID)
}

func stored[T any](rule T, row *Row) Stored[T] {
	return Stored[T]{Rule: rule, Revision: row.Revision, Updated: row.Updated, Author: row.Author}
}

// RemoveRule takes a rule of the policy away and returns what it was. not_found: there
// is none with this id.
func (r *Rules) RemoveRule(ctx context.Context, namespace, id, author string) (Stored[policy.Rule], error) {
	var out Stored[policy.Rule]
	err := r.change(ctx, "remove a policy rule", namespace, func(now *snapshot) (*edit, error) {
		i, found := search(now.policy, id, policyID)
		if !found {
			return nil, notFound("policy", id, namespace, listPolicy)
		}
		out = now.policy[i]
		return &edit{remove: []*Row{{Namespace: namespace, Kind: kindPolicy, ID: id}}}, nil
	})
	if err != nil {
		return Stored[policy.Rule]{}, err
	}
	r.log.Info("policy rule removed", "namespace", namespace, "rule", id, "author", author)
	return out, nil
}

// SetShadow makes a rule one that is only counted, or one that is enforced. not_found:
// there is none with this id.
func (r *Rules) SetShadow(ctx context.Context, namespace, id string, on bool, author string) (Stored[policy.Rule], error) {
	var out Stored[policy.Rule]
	err := r.change(ctx, "set a policy rule", namespace, func(now *snapshot) (*edit, error) {
		i, found := search(now.policy, id, policyID)
		if !found {
			return nil, notFound("policy", id, namespace, listPolicy)
		}
		if out = now.policy[i]; out.Rule.Shadow == on {
			return nil, nil
		}
		rule := out.Rule
		rule.Shadow = on
		row, err := r.row(namespace, kindPolicy, id, policyTarget(&rule), &rule, out.Revision, author)
		if err != nil {
			return nil, err
		}
		out = stored(rule, row)
		return &edit{put: []*Row{row}}, nil
	})
	if err != nil {
		return Stored[policy.Rule]{}, err
	}
	r.log.Info("policy rule set", "namespace", namespace, "rule", id, "shadow", on, "author", author)
	return out, nil
}

// SetCapability switches an action of a service off or on. One that is so already stays.
func (r *Rules) SetCapability(ctx context.Context, namespace, service, name string, on bool, author string) error {
	const operation = "set a capability"
	pair := policy.Pair{Service: service, Action: policy.Action(name)}
	switch {
	case !catalog.ValidName(service):
		return errs.New(errs.InvalidArgument, "service %q: want the name of one service, 1 to %d of a-z, 0-9, '.', '_', '-'", clip(service), catalog.MaxName).In(component, operation)
	case !pair.Action.Known():
		return errs.New(errs.InvalidArgument, "capability %q is none of %s", clip(name), actions()).In(component, operation)
	}
	id := capabilityID(&pair)
	changed := false
	err := r.change(ctx, operation, namespace, func(now *snapshot) (*edit, error) {
		_, off := search(now.off, id, capabilityID)
		if changed = off == on; !changed {
			return nil, nil
		}
		if on {
			return &edit{remove: []*Row{{Namespace: namespace, Kind: kindCapability, ID: id}}}, nil
		}
		if err := r.room(namespace, now); err != nil {
			return nil, err
		}
		row, err := r.row(namespace, kindCapability, id, id, &pair, 0, author)
		if err != nil {
			return nil, err
		}
		return &edit{put: []*Row{row}}, nil
	})
	if err == nil && changed {
		r.log.Info("capability set", "namespace", namespace, "service", service, "capability", name, "on", on, "author", author)
	}
	return err
}

// actions lists what can be switched off.
func actions() string {
	var b []byte
	for i, a := range policy.Actions() {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, a...)
	}
	return string(b)
}

// Off returns the capabilities of a namespace that are switched off, ordered by service
// and action.
func (r *Rules) Off(namespace string) []Stored[policy.Pair] {
	return slices.Clone(r.snapshot(namespace).off)
}
