package main

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "Make, list, rotate and revoke the keys by which services come in"}
	c.AddCommand(a.keysCreate(), a.keysList(), a.keysRevoke(), a.keysRotate())
	return c
}

func (a *app) keysCreate() *cobra.Command {
	var service, kind, ttl string
	c := &cobra.Command{
		Use:   "create --service NAME [LABEL] | create --kind api NAME",
		Short: "Make a key and print its secret, which is shown this once",
		Example: "  export TELFORD_KEY=$(telford keys create --service payments)\n" +
			"  telford keys create --kind api --namespace 1000 inventory-ui",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			req := map[string]string{"namespace": a.global.namespace, "service": service, "kind": kind, "ttl": ttl}
			if len(given) == 1 {
				req["name"] = given[0]
			}
			switch {
			case kind == "service" && service == "":
				return usagef("a service key is for one service: give --service NAME")
			case kind == "api" && req["name"] == "":
				return usagef("an api key needs a name: telford keys create --kind api NAME")
			case kind != "service" && kind != "api":
				return usagef("--kind: %q is neither service nor api", kind)
			}
			if err := checkDuration("--ttl", ttl); err != nil {
				return err
			}
			if d, err := time.ParseDuration(ttl); err == nil && d == 0 {
				return usagef("--ttl: %q is no life; leave --ttl out for a key without an end", ttl)
			}
			body, err := a.client().post(c.Context(), "/api/v1/keys", req)
			if err != nil {
				return err
			}
			return a.printSecret(body)
		},
	}
	c.Flags().StringVar(&service, "service", "", "the service that the key may be")
	c.Flags().StringVar(&kind, "kind", "service", "service, or api for the REST and bus doors")
	c.Flags().StringVar(&ttl, "ttl", "", "life of the key, such as 720h (default: for ever)")
	return c
}

// printSecret prints a new key: the bare key for a service, so that it can be put in a
// variable, and the pair for an api key.
func (a *app) printSecret(body []byte) error {
	if a.global.json {
		return a.raw(body)
	}
	key := &adminv1.CreateKeyResponse{}
	if err := decode(body, key); err != nil {
		return err
	}
	if key.GetKind() == "service" {
		_, err := fmt.Fprintln(a.stdout, key.GetKey())
		return err
	}
	t := newTable("ID", "SECRET", "NAMESPACE")
	t.row(key.GetId(), key.GetSecret(), key.GetNamespace())
	return a.print(t)
}

func (a *app) keysList() *cobra.Command {
	var service string
	var page pageFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List keys, without their secrets",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			set(query, "service", service)
			t := newTable("ID", "NAMESPACE", "SERVICE", "KIND", "NAME", "STATE", "CREATED", "EXPIRES")
			err := a.pages(c.Context(), "/api/v1/keys", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListKeysResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, k := range list.GetItems() {
					t.row(k.GetId(), k.GetNamespace(), k.GetService(), k.GetKind(), k.GetName(), k.GetState(), when(k.GetCreatedAt()), when(k.GetExpiresAt()))
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json {
				return err
			}
			return a.print(t)
		},
	}
	c.Flags().StringVar(&service, "service", "", "only keys of this service")
	page.add(c)
	return c
}

func (a *app) keysRevoke() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a key, its sessions and its direct connections, for good",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/keys/"+url.PathEscape(given[0])+":revoke", map[string]string{"reason": reason})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			key := &adminv1.Key{}
			if err := decode(body, key); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s revoked at %s\n", key.GetId(), when(key.GetRevokedAt()))
			return err
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return c
}

func (a *app) keysRotate() *cobra.Command {
	var grace string
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make the successor of a key and print its secret; the old one ends after the grace",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			if err := checkDuration("--grace", grace); err != nil {
				return err
			}
			body, err := a.client().post(c.Context(), "/api/v1/keys/"+url.PathEscape(given[0])+":rotate", map[string]string{"grace": grace})
			if err != nil {
				return err
			}
			return a.printSecret(body)
		},
	}
	c.Flags().StringVar(&grace, "grace", "", "how long the old key still works (default 24h; 0s ends it at once)")
	return c
}

func checkDuration(flag, value string) error {
	if value == "" {
		return nil
	}
	if d, err := time.ParseDuration(value); err != nil || d < 0 {
		return usagef("%s: %q is not a duration such as 30m or 720h", flag, value)
	}
	return nil
}

func set(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

// rawOr prints body unless there is an error.
func (a *app) rawOr(body []byte, err error) error {
	if err != nil {
		return err
	}
	return a.raw(body)
}

// pageFlags choose a part of a list.
type pageFlags struct {
	size  int
	token string
}

func (p *pageFlags) add(c *cobra.Command) {
	c.Flags().IntVar(&p.size, "page-size", 0, "print one page of at most this many items (1 to 1000) instead of all")
	c.Flags().StringVar(&p.token, "page-token", "", "begin behind the page that named this token")
}

// query returns what the API is asked for: one page as wanted, or pages as large as
// they get.
func (p *pageFlags) query(q url.Values) (url.Values, error) {
	if p.size < 0 || p.size > 1000 {
		return nil, usagef("--page-size: %d is outside 1 to 1000", p.size)
	}
	size := p.size
	if size == 0 {
		size = 1000
	}
	q.Set("page_size", strconv.Itoa(size))
	set(q, "page_token", p.token)
	return q, nil
}
