// Package rest is the client of the REST registry: services that heartbeat, their
// configuration and the feed of what happened to both, as JSON over HTTP. It owns the
// types and faults of that API, which the server shares, and a client with what long
// running processes need around them: one authentication for all callers, pages as
// iterators, a cache that outlasts the registry's absence, a Heartbeater, a Poller of the
// feed and a watch of the configuration.
//
// It never judges what a server accepts beyond what a request needs to be sent, never
// follows a redirect with a token in hand, and keeps nothing outside the process. A
// Client starts no goroutines: requests, iterators and the cache run on those of their
// callers. A Heartbeater runs one, from Start to Stop.
package rest
