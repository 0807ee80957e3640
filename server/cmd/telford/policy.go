package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

const policyActions = "rpc.call, rpc.handle, event.publish, event.handle, workflow.run, workflow.handle"

func (a *app) policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Lay down who may call, publish and run what, and see what is denied"}
	c.AddCommand(a.policyShow(), a.policyAdd("allow"), a.policyAdd("deny"), a.policyRemove(), a.policyTest(), a.policyShadow(), a.policyCapability())
	return c
}

// inNamespace is the query that names the namespace, when one was given.
func (a *app) inNamespace() url.Values {
	query := url.Values{}
	set(query, "namespace", a.global.namespace)
	return query
}

func (a *app) policyShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [SERVICE]",
		Short: "Show rules, capabilities that are off, and what of live instances they forbid",
		Long: "Show what is laid down for a namespace, or for one service: its own rules and those of\n" +
			"others that name it, the capabilities that are off, and what of the declarations of\n" +
			"live instances has not its full effect because of them.",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := a.inNamespace()
			if len(given) == 1 {
				query.Set("service", given[0])
			}
			body, err := a.client().get(c.Context(), "/api/v1/policy", query)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			state := &adminv1.PolicyState{}
			if err := decode(body, state); err != nil {
				return err
			}
			return a.printPolicy(state)
		},
	}
}

func (a *app) printPolicy(state *adminv1.PolicyState) error {
	if len(state.GetRules())+len(state.GetCapabilities()) == 0 {
		fmt.Fprintln(a.stdout, "no rules, and every capability is on: all is allowed")
	}
	var tables []*table
	if len(state.GetRules()) > 0 {
		t := newTable("ID", "SERVICE", "ACTION", "EFFECT", "PEER", "TARGET", "SHADOW", "UPDATED", "AUTHOR")
		for _, r := range state.GetRules() {
			t.row(r.GetId(), r.GetService(), r.GetAction(), r.GetEffect(), r.GetPeer(), r.GetTarget(), shadowed(r), when(r.GetUpdatedAt()), r.GetAuthor())
		}
		tables = append(tables, t)
	}
	if len(state.GetCapabilities()) > 0 {
		t := newTable("SERVICE", "CAPABILITY", "STATE")
		for _, x := range state.GetCapabilities() {
			t.row(x.GetService(), x.GetName(), "off")
		}
		tables = append(tables, t)
	}
	if len(state.GetWarnings()) > 0 {
		t := newTable("SERVICE", "INSTANCE", "DECLARATION", "VALUE", "SIDE", "REASON")
		for _, w := range state.GetWarnings() {
			t.row(w.GetService(), w.GetInstance(), w.GetDeclaration(), w.GetValue(), w.GetSide(), w.GetReason())
		}
		tables = append(tables, t)
	}
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := a.print(t); err != nil {
			return err
		}
	}
	return nil
}

func shadowed(r *adminv1.PolicyRule) string {
	if r.GetShadow() {
		return "counted"
	}
	return ""
}

// ruleText says in a line what a rule does.
func ruleText(r *adminv1.PolicyRule) string {
	words := []string{r.GetEffect(), r.GetService(), r.GetAction()}
	if p := r.GetPeer(); p != "" {
		words = append(words, "peer "+p)
	}
	if t := r.GetTarget(); t != "" {
		words = append(words, "target "+t)
	}
	if r.GetShadow() {
		words = append(words, "(only counted)")
	}
	return strings.Join(words, " ")
}

func (a *app) policyAdd(effect string) *cobra.Command {
	var peer, target string
	var shadow bool
	short := "Allow an action of a service; the first such rule makes what is allowed a list"
	long := "Allow an action of a service. As long as an action of a service has no rule to allow,\n" +
		"everything is allowed; the first one makes it a list, and what no rule on it allows is\n" +
		"denied. A call needs the rpc.call of its caller and the rpc.handle of its callee.\n"
	example := "  telford policy allow payments rpc.handle --peer orders --target charge\n" +
		"  telford policy allow orders rpc.call --peer 'pay*' --shadow\n" +
		"  telford policy allow orders event.publish --target 'orders.#'"
	if effect == "deny" {
		short = "Deny an action of a service, whatever other rules allow"
		long = "Deny an action of a service. What a rule to deny matches is denied whatever others allow;\n" +
			"what it does not match stays as it was.\n"
		example = "  telford policy deny payments rpc.handle --peer 'test-*'\n" +
			"  telford policy deny orders rpc.call --peer payments --target refund --shadow"
	}
	c := &cobra.Command{
		Use:   effect + " SERVICE ACTION",
		Short: short,
		Long: long + "\nACTION is one of " + policyActions + ".\n" +
			"The rule holds within two seconds, without reconnecting.",
		Example: example,
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/policy/rules", map[string]any{
				"namespace": a.global.namespace, "service": given[0], "action": given[1], "effect": effect,
				"peer": peer, "target": target, "shadow": shadow,
			})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			rule := &adminv1.PolicyRule{}
			if err := decode(body, rule); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s added: %s\n", rule.GetId(), ruleText(rule))
			return a.noteList(c.Context(), rule)
		},
	}
	c.Flags().StringVar(&peer, "peer", "", "the service at the other end, or a pattern with * (default: any)")
	c.Flags().StringVar(&target, "target", "", "the method or workflow by its full name or last segment, or a pattern with *; for events a pattern of topics (default: any)")
	c.Flags().BoolVar(&shadow, "shadow", false, "do not enforce the rule, count what it would deny")
	return c
}

// noteList tells who has made the first rule to allow of an action what that means.
func (a *app) noteList(ctx context.Context, rule *adminv1.PolicyRule) error {
	if rule.GetEffect() != "allow" || rule.GetShadow() {
		return nil
	}
	query := a.inNamespace()
	query.Set("service", rule.GetService())
	body, err := a.client().get(ctx, "/api/v1/policy", query)
	if err != nil {
		return err
	}
	state := &adminv1.PolicyState{}
	if err := decode(body, state); err != nil {
		return err
	}
	for _, r := range state.GetRules() {
		if r.GetId() != rule.GetId() && r.GetService() == rule.GetService() && r.GetAction() == rule.GetAction() &&
			r.GetEffect() == "allow" && !r.GetShadow() {
			return nil
		}
	}
	_, err = fmt.Fprintf(a.stdout, "it is the first to allow %s of %s: what no such rule allows is denied from now on\n", rule.GetAction(), rule.GetService())
	return err
}

func (a *app) policyRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID",
		Short: "Remove a rule",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().remove(c.Context(), "/api/v1/policy/rules/"+url.PathEscape(given[0]), a.inNamespace())
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			rule := &adminv1.PolicyRule{}
			if err := decode(body, rule); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s removed: %s\n", rule.GetId(), ruleText(rule))
			return err
		},
	}
}

// question is what policy test asks.
type question struct {
	from, to, method, publish, subscribe, run string
}

// query returns the question as the API takes it.
func (q *question) query(query url.Values) (url.Values, error) {
	forms := []struct {
		flag, target, action string
		to                   bool
	}{
		{"--method", q.method, "rpc.call", true},
		{"--run", q.run, "workflow.run", true},
		{"--publish", q.publish, "event.publish", false},
		{"--subscribe", q.subscribe, "event.handle", false},
	}
	var asked []int
	for i := range forms {
		if forms[i].target != "" {
			asked = append(asked, i)
		}
	}
	switch len(asked) {
	case 0:
		return nil, usagef("nothing is asked: give --method, --run, --publish or --subscribe")
	case 1:
	default:
		return nil, usagef("%s and %s ask two questions; give one of them", forms[asked[0]].flag, forms[asked[1]].flag)
	}
	form := &forms[asked[0]]
	switch {
	case q.from == "":
		return nil, usagef("--from is missing: the service that calls, runs, publishes or subscribes")
	case form.to && q.to == "":
		return nil, usagef("--to is missing: the service that is asked")
	case !form.to && q.to != "":
		return nil, usagef("--to: events go to nobody in particular; leave it out with %s", form.flag)
	}
	set(query, "action", form.action)
	set(query, "from", q.from)
	set(query, "to", q.to)
	set(query, "target", form.target)
	return query, nil
}

func (a *app) policyTest() *cobra.Command {
	var q question
	c := &cobra.Command{
		Use:   "test --from SERVICE --to SERVICE --method METHOD | --from SERVICE --publish TOPIC | --from SERVICE --subscribe PATTERN",
		Short: "Say whether something is allowed, and by which rule; status 1 when it is denied",
		Example: "  telford policy test --from orders --to payments --method charge\n" +
			"  telford policy test --from orders --publish orders.created\n" +
			"  telford policy test --from search --subscribe 'orders.#'\n" +
			"  telford policy test --from orders --to billing --run invoice",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			query, err := q.query(a.inNamespace())
			if err != nil {
				return err
			}
			body, err := a.client().get(c.Context(), "/api/v1/policy:decide", query)
			if err != nil {
				return err
			}
			d := &adminv1.Decision{}
			if err := decode(body, d); err != nil {
				return err
			}
			if a.global.json {
				if err := a.raw(body); err != nil {
					return err
				}
			}
			return a.printDecision(d)
		},
	}
	f := c.Flags()
	f.StringVar(&q.from, "from", "", "the service that calls, runs, publishes or subscribes")
	f.StringVar(&q.to, "to", "", "the service that is called, or that runs the workflow")
	f.StringVar(&q.method, "method", "", "a method, by its full name or its last segment")
	f.StringVar(&q.publish, "publish", "", "the topic of an event")
	f.StringVar(&q.subscribe, "subscribe", "", "a pattern of topics")
	f.StringVar(&q.run, "run", "", "a workflow")
	return c
}

// printDecision prints an answer for people; one that denies is a failure, with --json
// too.
func (a *app) printDecision(d *adminv1.Decision) error {
	if !d.GetAllowed() {
		return fmt.Errorf("denied by %s (%s): %s", d.GetRule(), d.GetSide(), d.GetReason())
	}
	if a.global.json {
		return nil
	}
	word := "allowed: " + d.GetReason()
	if d.GetShadowDenied() {
		word = fmt.Sprintf("allowed, and counted: %s (%s) would deny it: %s", d.GetRule(), d.GetSide(), d.GetReason())
	}
	_, err := fmt.Fprintln(a.stdout, word)
	return err
}

func (a *app) policyCapability() *cobra.Command {
	return &cobra.Command{
		Use:   "capability SERVICE NAME on|off",
		Short: "Switch an action of a service off as a whole, or on again",
		Long: "Switch an action of a service off, whatever rules allow, or on again: one of\n" +
			policyActions + " and job.handle. The methods of a\n" +
			"service whose rpc.handle is off are not on the map; they come back with it, without\n" +
			"reconnecting.",
		Example: "  telford policy capability payments rpc.handle off",
		Args:    args(cobra.ExactArgs(3)),
		RunE: func(c *cobra.Command, given []string) error {
			if given[2] != "on" && given[2] != "off" {
				return usagef("%q is neither on nor off\nUsage: %s", given[2], c.UseLine())
			}
			body, err := a.client().post(c.Context(), "/api/v1/policy/capabilities", map[string]any{
				"namespace": a.global.namespace, "service": given[0], "name": given[1], "on": given[2] == "on",
			})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			_, err = fmt.Fprintf(a.stdout, "%s of %s is %s\n", given[1], given[0], given[2])
			return err
		},
	}
}
