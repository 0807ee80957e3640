package admin

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/match"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/rules"
)

// Limits is the part of the rules domain that lays down limits; *rules.Rules is one.
type Limits interface {
	Limits(namespace string) []rules.Stored[limit.Rule]
	SetLimit(ctx context.Context, namespace string, rule limit.Rule, author string) (rules.Stored[limit.Rule], error)
	RemoveLimit(ctx context.Context, namespace, id, author string) (rules.Stored[limit.Rule], error)
}

// limits implements telford.admin.v1.Limits.
type limits struct {
	adminv1.UnimplementedLimitsServer
	api *API
}

// Where a limit comes from.
const (
	sourceSet      = "set"
	sourceDeclared = "declared"
)

func (l *limits) List(_ context.Context, in *adminv1.ListLimitsRequest) (*adminv1.ListLimitsResponse, error) {
	namespace, err := l.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	all := l.declared(namespace, in.GetService())
	for _, s := range l.api.cfg.Limits.Limits(namespace) {
		if in.GetService() == "" || s.Rule.Service == in.GetService() {
			all = append(all, listed{limitToProto(namespace, s), 0})
		}
	}
	slices.SortFunc(all, func(a, b listed) int { return cmp.Compare(a.key(), b.key()) })
	page, next, err := paginate(all, in.GetPageSize(), in.GetPageToken(), listed.key)
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListLimitsResponse{NextPageToken: next}
	for _, i := range page {
		out.Items = append(out.Items, i.Limit)
	}
	return out, nil
}

// listed is a limit in the list; of those that a method declares, number is which.
type listed struct {
	*adminv1.Limit
	number int
}

// key orders the list: quotas first, then by service and method what is set before what
// is declared.
func (l listed) key() string {
	return strings.Join([]string{l.GetService(), l.GetMethod(), strconv.Itoa(l.number), l.GetId()}, "\x00")
}

// declared returns what the newest instances of services declare of their methods.
func (l *limits) declared(namespace, service string) []listed {
	type target struct{ service, method string }
	newest := make(map[target]*catalog.Instance)
	methods := make(map[target]*catalog.Method)
	for _, in := range l.api.cfg.Registry.List(registry.Filter{Namespace: namespace, Service: service}) {
		for i := range in.Declaration.Methods {
			t := target{in.Declaration.Service, in.Declaration.Methods[i].Name}
			if old := newest[t]; old == nil || match.CompareVersions(in.Declaration.Version, old.Declaration.Version) > 0 {
				newest[t], methods[t] = in, &in.Declaration.Methods[i]
			}
		}
	}
	var out []listed
	for t, m := range methods {
		for i := range m.Limits {
			item := &adminv1.Limit{Namespace: namespace, Service: t.service, Method: t.method, Source: sourceDeclared}
			fill(item, &m.Limits[i])
			out = append(out, listed{item, i + 1})
		}
	}
	return out
}

func (l *limits) Set(ctx context.Context, in *adminv1.SetLimitRequest) (*adminv1.Limit, error) {
	namespace, err := l.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	rule := limit.Rule{Service: in.GetService(), Method: in.GetMethod(), Instances: int(in.GetInstances()), Limit: catalog.Limit{
		Concurrency: int(in.GetConcurrency()), Queue: int(in.GetQueue()), Rate: in.GetRate(), Burst: int(in.GetBurst()),
		Key: in.GetKey(), Scope: in.GetScope(),
	}}
	if err := rule.Validate(); err != nil {
		return nil, err
	}
	if rule.Method, err = l.method(namespace, &rule); err != nil {
		return nil, err
	}
	set, err := l.api.cfg.Limits.SetLimit(ctx, namespace, rule, operator)
	if err != nil {
		return nil, err
	}
	return limitToProto(namespace, set), nil
}

// method returns the whole name of the method that a rule means, and checks that it can be
// counted as the rule says. A method that nobody has yet keeps the name given.
func (l *limits) method(namespace string, rule *limit.Rule) (string, error) {
	if rule.Method == "" {
		return "", nil
	}
	var names []string
	counted := make(map[string]bool) // by a function
	for _, in := range l.api.cfg.Registry.List(registry.Filter{Namespace: namespace, Service: rule.Service}) {
		for i := range in.Declaration.Methods {
			m := &in.Declaration.Methods[i]
			if m.Name != rule.Method && !strings.HasSuffix(m.Name, "/"+rule.Method) {
				continue
			}
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
			if slices.ContainsFunc(m.Limits, func(d catalog.Limit) bool { return d.Key == catalog.KeyFunc }) {
				counted[m.Name] = true
			}
		}
	}
	name := rule.Method
	switch {
	case slices.Contains(names, name):
	case len(names) == 1:
		name = names[0]
	case len(names) > 1:
		slices.Sort(names)
		return "", errs.New(errs.InvalidArgument, "service %q has %d methods that end in %q: name one of them in full: %s",
			rule.Service, len(names), rule.Method, strings.Join(names[:min(len(names), maxNamed)], ", "))
	}
	if rule.Limit.Key == catalog.KeyFunc && !counted[name] {
		return "", errs.New(errs.InvalidArgument, "key %q: no instance of %q declares a function for method %q; count by caller, header:NAME or field:NAME, or declare one with LimitBy(ByFunc(...))",
			catalog.KeyFunc, rule.Service, name)
	}
	return name, nil
}

func (l *limits) Remove(ctx context.Context, in *adminv1.RemoveLimitRequest) (*adminv1.Limit, error) {
	namespace, err := l.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if in.GetId() == "" {
		return nil, errs.New(errs.InvalidArgument, "id: name the limit to remove; telford limits show lists them")
	}
	gone, err := l.api.cfg.Limits.RemoveLimit(ctx, namespace, in.GetId(), operator)
	if err != nil {
		return nil, err
	}
	return limitToProto(namespace, gone), nil
}

// namespace returns the name of the namespace that is meant, which exists.
func (l *limits) namespace(ref string) (string, error) {
	n, err := l.api.cfg.Authority.Namespace(orDefault(ref))
	return n.Name, err
}

func limitToProto(namespace string, s rules.Stored[limit.Rule]) *adminv1.Limit {
	out := &adminv1.Limit{
		Id: s.Rule.ID, Namespace: namespace, Service: s.Rule.Service, Method: s.Rule.Method, Source: sourceSet,
		Instances: uint32(s.Rule.Instances), UpdatedAt: timestamp(s.Updated), Author: s.Author,
	}
	fill(out, &s.Rule.Limit)
	return out
}

func fill(out *adminv1.Limit, l *catalog.Limit) {
	out.Concurrency, out.Queue, out.Rate, out.Burst = uint32(l.Concurrency), uint32(l.Queue), l.Rate, uint32(l.Burst)
	out.Key, out.Scope = l.Key, cmp.Or(l.Scope, catalog.LimitInstance)
}
