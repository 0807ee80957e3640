package rules

import (
	"context"

	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/transport"
)

const (
	listLimits     = "telford limits show"
	listTransports = "telford transport show"
)

// SetLimit lays down the limit of a method, of the instances of a service or of the
// namespace, in place of an earlier one, whose id it keeps. invalid_argument says what is
// wrong with it; resource_exhausted names the limit of rules.
func (r *Rules) SetLimit(ctx context.Context, namespace string, rule limit.Rule, author string) (Stored[limit.Rule], error) {
	return set(ctx, r, setting[limit.Rule]{
		kind: kindLimit, prefix: "lim", namespace: namespace, author: author, target: subject(rule.Service, rule.Method),
		rule: rule, check: rule.Validate(),
		list: func(s *snapshot) []Stored[limit.Rule] { return s.limits }, idOf: limitID,
		about: func(l *limit.Rule) string { return subject(l.Service, l.Method) },
		named: func(l limit.Rule, id string) limit.Rule { l.ID = id; return l },
		equal: func(a, b *limit.Rule) bool { return *a == *b },
		spec: func(l *limit.Rule) any {
			return limitSpec{Service: l.Service, Method: l.Method, Limit: l.Limit, Instances: l.Instances}
		},
	})
}

// RemoveLimit takes a limit away and returns what it was. not_found: there is none with
// this id.
func (r *Rules) RemoveLimit(ctx context.Context, namespace, id, author string) (Stored[limit.Rule], error) {
	return unset(ctx, r, namespace, kindLimit, id, author, listLimits, func(s *snapshot) []Stored[limit.Rule] { return s.limits }, limitID)
}

// SetTransport lays down which way the calls of a method, of a service or of the
// namespace go, in place of an earlier rule, whose id it keeps. invalid_argument says
// what is wrong with it; resource_exhausted names the limit of rules.
func (r *Rules) SetTransport(ctx context.Context, namespace string, rule transport.Rule, author string) (Stored[transport.Rule], error) {
	return set(ctx, r, setting[transport.Rule]{
		kind: kindTransport, prefix: "trn", namespace: namespace, author: author, target: subject(rule.Service, rule.Method),
		rule: rule, check: rule.Validate(),
		list: func(s *snapshot) []Stored[transport.Rule] { return s.transports }, idOf: transportID,
		about: func(t *transport.Rule) string { return subject(t.Service, t.Method) },
		named: func(t transport.Rule, id string) transport.Rule { t.ID = id; return t },
		equal: func(a, b *transport.Rule) bool { return *a == *b },
		spec: func(t *transport.Rule) any {
			return transportSpec{Service: t.Service, Method: t.Method, Mode: t.Mode, Fallback: t.Fallback, Timeout: t.Timeout}
		},
	})
}

// RemoveTransport takes a transport rule away and returns what it was. not_found: there
// is none with this id.
func (r *Rules) RemoveTransport(ctx context.Context, namespace, id, author string) (Stored[transport.Rule], error) {
	return unset(ctx, r, namespace, kindTransport, id, author, listTransports, func(s *snapshot) []Stored[transport.Rule] { return s.transports }, transportID)
}

// setting is a rule of which there is one for each target.
type setting[T any] struct {
	kind, prefix, namespace, author, target string
	rule                                    T
	check                                   error
	list                                    func(*snapshot) []Stored[T]
	idOf, about                             func(*T) string
	named                                   func(rule T, id string) T
	equal                                   func(a, b *T) bool
	spec                                    func(*T) any
}

func set[T any](ctx context.Context, r *Rules, s setting[T]) (out Stored[T], err error) {
	operation := "set a " + s.kind + " rule"
	if s.check != nil {
		return out, storageError(operation, s.check)
	}
	changed := false
	err = r.change(ctx, operation, s.namespace, func(now *snapshot) (*edit, error) {
		list := s.list(now)
		var revision int64
		id := ""
		for i := range list {
			if s.about(&list[i].Rule) == s.target {
				out, id, revision = list[i], s.idOf(&list[i].Rule), list[i].Revision
			}
		}
		if id == "" {
			if err := r.room(s.namespace, now); err != nil {
				return nil, err
			}
			id = r.ids.New(s.prefix, r.cfg.Clock.Now())
		}
		rule := s.named(s.rule, id)
		if changed = revision == 0 || !s.equal(&out.Rule, &rule); !changed {
			return nil, nil
		}
		row, err := r.row(s.namespace, s.kind, id, s.target, s.spec(&rule), revision, s.author)
		if err != nil {
			return nil, err
		}
		out = stored(rule, row)
		return &edit{put: []*Row{row}}, nil
	})
	if err != nil {
		return Stored[T]{}, err
	}
	if changed {
		r.log.Info("rule set", "kind", s.kind, "namespace", s.namespace, "rule", s.idOf(&out.Rule), "target", s.target, "author", s.author)
	}
	return out, nil
}

func unset[T any](ctx context.Context, r *Rules, namespace, kind, id, author, show string, list func(*snapshot) []Stored[T], idOf func(*T) string) (out Stored[T], err error) {
	err = r.change(ctx, "remove a "+kind+" rule", namespace, func(now *snapshot) (*edit, error) {
		all := list(now)
		i, found := search(all, id, idOf)
		if !found {
			return nil, notFound(kind, id, namespace, show)
		}
		out = all[i]
		return &edit{remove: []*Row{{Namespace: namespace, Kind: kind, ID: id}}}, nil
	})
	if err != nil {
		return Stored[T]{}, err
	}
	r.log.Info("rule removed", "kind", kind, "namespace", namespace, "rule", id, "author", author)
	return out, nil
}
