package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) idempotencyCommand() *cobra.Command {
	c := &cobra.Command{Use: "idempotency", Short: "Show what became of calls with an idempotency key"}
	c.AddCommand(a.idempotencyShow())
	return c
}

func (a *app) idempotencyShow() *cobra.Command {
	var business bool
	var page pageFlags
	c := &cobra.Command{
		Use:     "show KEY",
		Short:   "Show the calls of a key: what became of them, when, where, and how long the key is kept",
		Example: "  telford idempotency show order-4711\n  telford idempotency show --business-key customer-12",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			what := "key"
			if business {
				what = "business_key"
			}
			query.Set(what, given[0])
			found := 0
			err := a.pages(c.Context(), "/api/v1/idempotency", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListIdempotencyResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, r := range list.GetItems() {
					if err := a.printRecord(r, found > 0); err != nil {
						return "", err
					}
					found++
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json || found > 0 {
				return err
			}
			return fmt.Errorf("no call with the %s %q is kept: none has been given to an instance, or the key has expired", strings.ReplaceAll(what, "_", " "), given[0])
		},
	}
	c.Flags().BoolVar(&business, "business-key", false, "KEY is a business key")
	page.add(c)
	return c
}

// meaning says what a state means for the next call.
func meaning(state string) string {
	switch state {
	case "running":
		return "the call runs; others with the key wait for its answer"
	case "answered":
		return "later calls with the key get this answer"
	case "too_large":
		return "the call has run; its answer was too large to be kept, and later calls with the key are refused"
	case "open":
		return "what became of the call is unknown; the next one with the key runs"
	case "closed":
		return "what became of the call is unknown, and the method must not run again; later calls with the key are refused"
	case "released":
		return "nobody began the call; the next one with the key runs"
	default:
		return "unknown to this program; use one as new as the runtime"
	}
}

func (a *app) printRecord(r *adminv1.IdempotencyRecord, again bool) error {
	answer := ""
	switch {
	case r.GetAnsweredAt() == nil:
	case r.GetCode() == "":
		answer = fmt.Sprintf("success, %d bytes", r.GetAnswerBytes())
	default:
		answer = fmt.Sprintf("failed with code %s, %d bytes", r.GetCode(), r.GetAnswerBytes())
	}
	took := ""
	if r.GetAnsweredAt() != nil && r.GetClaimedAt() != nil {
		took = " (after " + r.GetAnsweredAt().AsTime().Sub(r.GetClaimedAt().AsTime()).Round(time.Microsecond).String() + ")"
	}
	t := &table{}
	t.row("key", strconv.Quote(r.GetKey()))
	t.row("scope", fmt.Sprintf("namespace %s, caller %s, callee %s, method %s", r.GetNamespace(), r.GetCaller(), r.GetCallee(), r.GetMethod()))
	t.row("state", r.GetState()+": "+meaning(r.GetState()))
	t.row("claimed", when(r.GetClaimedAt()))
	t.row("deadline", when(r.GetDeadline()))
	t.row("answered", when(r.GetAnsweredAt())+took)
	t.row("answer", answer)
	t.row("instance", r.GetInstance())
	t.row("business key", r.GetBusinessKey())
	t.row("request", r.GetRequestId())
	t.row("trace", r.GetTraceId())
	t.row("body", "sha256 "+r.GetBodyHash())
	t.row("expires", when(r.GetExpiresAt()))
	if again {
		if _, err := fmt.Fprintln(a.stdout); err != nil {
			return err
		}
	}
	return a.print(t)
}
