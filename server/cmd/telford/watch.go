package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) servicesWatch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [SERVICE…]",
		Short: "Print what there is, then every change until interrupted",
		RunE: func(c *cobra.Command, names []string) error {
			query := url.Values{"names": names}
			set(query, "namespace", a.global.namespace)
			var parts updateParts
			return a.follow(c.Context(), "/api/v1/services:watch", query, func(body []byte) error { return a.printUpdate(body, &parts) })
		},
	}
}

// follow reads a stream until it ends, which is an error, or the command is interrupted,
// which is none. each gets one message; with --json, lines are printed as they came.
func (a *app) follow(ctx context.Context, path string, query url.Values, each func(body []byte) error) error {
	resp, err := a.client().send(ctx, http.MethodGet, path+"?"+query.Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = a.messages(bufio.NewReader(resp.Body), each)
	if ctx.Err() != nil {
		return nil // interrupted: that is how a watch ends
	}
	return err
}

func (a *app) messages(r *bufio.Reader, each func(body []byte) error) error {
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 1 {
			if e := a.message(line, each); e != nil {
				return e
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the runtime ended the watch; run the command again to go on")
		case err != nil:
			return fmt.Errorf("read the watch: %w", err)
		}
	}
}

func (a *app) message(line []byte, each func(body []byte) error) error {
	var chunk struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(line, &chunk); err != nil {
		return fmt.Errorf("read the watch: %w", err)
	}
	if chunk.Error != nil {
		e := &apiError{}
		if json.Unmarshal(chunk.Error, e) != nil || e.Detail == "" {
			e.Detail = string(chunk.Error)
		}
		return e
	}
	if a.global.json {
		return a.raw(line)
	}
	return each(chunk.Result)
}

func (a *app) printUpdate(body []byte, parts *updateParts) error {
	part := &adminv1.ServiceUpdate{}
	if err := decode(body, part); err != nil {
		return err
	}
	u := parts.add(part)
	if u == nil {
		return nil
	}
	if u.GetSnapshot() {
		fmt.Fprintf(a.stdout, "= %d instances at revision %d.%d\n", len(u.GetUpserts()), u.GetRevision().GetEpoch(), u.GetRevision().GetN())
	}
	for _, in := range u.GetUpserts() {
		reach := "reachable"
		if !in.GetReachable() {
			reach = "not reachable"
		}
		fmt.Fprintf(a.stdout, "+ %s %s %s, %s\n", in.GetName(), in.GetId(), condition(in), reach)
	}
	for _, g := range u.GetRemovals() {
		fmt.Fprintf(a.stdout, "- %s %s %s\n", g.GetName(), g.GetId(), g.GetReason())
	}
	return nil
}

// updateParts puts an update together that is too large for one message: all its parts
// but the last are without a revision.
type updateParts struct{ pending *adminv1.ServiceUpdate }

// add returns the update that a part completes; nil while more is to come.
func (p *updateParts) add(part *adminv1.ServiceUpdate) *adminv1.ServiceUpdate {
	whole := p.pending
	if whole == nil || part.GetSnapshot() {
		whole = part
	} else {
		whole.Upserts = append(whole.Upserts, part.GetUpserts()...)
		whole.Removals = append(whole.Removals, part.GetRemovals()...)
		whole.Revision = part.GetRevision()
	}
	p.pending = nil
	if whole.GetRevision().GetEpoch() == 0 {
		p.pending = whole
		return nil
	}
	return whole
}
