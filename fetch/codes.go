package fetch

import "time"

// CodeRow is one row of the error table: an ErrorCode of the API and what it
// means for the events that wait for the call.
type CodeRow struct {
	Code    int
	Name    string // stable, snake_case; used in messages, logs and tests
	Verdict Verdict
	Meaning string // in this project's words
	Source  string // where the code is published

	// Lockout is for how long the API rejects everything after this code.
	Lockout time.Duration
	// Resign means that the first such response is a Retry and the next request
	// gets a new UserSig. Only if that is refused, too, the verdict is the row's.
	Resign bool
}

// Where the codes are published. The pages change; the names are how to find them.
const (
	sourceCall    = "Tencent RTC, Call server API v4: get records by CallId"
	sourceREST    = "Tencent Cloud Chat: error codes of the REST API"
	sourceAccount = "Tencent Cloud Chat: error codes of accounts"
	sourceSDK     = "Tencent Cloud Chat: error codes of the SDK (V2TIMErrorCode); which of them the Call API sends is not published"
)

// codes is the error table of the v4 API. The v1 API gives some of these
// numbers other meanings: it must never be pointed at this table.
//
// What happens on a code: its row here says which verdict it has, and the table
// in verdict.go says what enricher does on that verdict.
var codes = [...]CodeRow{
	{Code: 101050, Name: "record_not_found", Verdict: NotYet, Source: sourceCall, Meaning: "no record of this call; a record is readable from about 5 s after the call's end, for about 7 days"},

	{Code: 101001, Name: "call_backend_busy", Verdict: Retry, Source: sourceCall, Meaning: "internal error in the call service"},
	{Code: 60008, Name: "timed_out_or_bad_format", Verdict: Retry, Source: sourceREST, Meaning: "the service timed out, or could not read the HTTP request"},
	{Code: 60013, Name: "backend_not_json", Verdict: Retry, Source: sourceREST, Meaning: "the API could not read the response of its own backend"},
	{Code: 60014, Name: "account_mapping_timed_out", Verdict: Retry, Source: sourceREST, Meaning: "looking up the account took too long"},
	{Code: 70169, Name: "account_backend_timed_out", Verdict: Retry, Source: sourceAccount, Meaning: "the account service timed out"},
	{Code: 70500, Name: "account_backend_error", Verdict: Retry, Source: sourceAccount, Meaning: "internal error in the account service"},
	{Code: 10002, Name: "group_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in the group service"},
	{Code: 20004, Name: "message_network_error", Verdict: Retry, Source: sourceSDK, Meaning: "network error in the message service"},
	{Code: 20005, Name: "message_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in the message service"},
	{Code: 30006, Name: "relation_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in the relationship service"},
	{Code: 40006, Name: "profile_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in the profile service"},
	{Code: 50004, Name: "contact_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in the conversation service"},
	{Code: 90992, Name: "backend_internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error in a backend"},
	{Code: 90994, Name: "internal_error", Verdict: Retry, Source: sourceSDK, Meaning: "internal error"},
	{Code: 90995, Name: "internal_error_2", Verdict: Retry, Source: sourceSDK, Meaning: "internal error"},
	{Code: 91000, Name: "internal_error_3", Verdict: Retry, Source: sourceSDK, Meaning: "internal error"},

	{Code: 60007, Name: "rate_limited", Verdict: Throttled, Source: sourceREST, Meaning: "more requests of this command than its quota allows"},
	{Code: 60011, Name: "app_rate_limited", Verdict: Throttled, Source: sourceREST, Meaning: "more requests than the app may send"},
	{Code: 60018, Name: "too_frequent", Verdict: Throttled, Source: sourceREST, Meaning: "requests are too frequent"},
	{Code: 60019, Name: "too_frequent_2", Verdict: Throttled, Source: sourceREST, Meaning: "requests are too frequent"},

	{Code: 60002, Name: "bad_url", Verdict: AccountRejected, Source: sourceREST, Meaning: "the API cannot read the request's URL"},
	{Code: 60004, Name: "bad_account_or_signature", Verdict: AccountRejected, Source: sourceREST, Meaning: "account or signature in the request is wrong"},
	{Code: 60005, Name: "bad_account_or_signature_2", Verdict: AccountRejected, Source: sourceREST, Meaning: "account or signature in the request is wrong"},
	{Code: 60006, Name: "bad_app", Verdict: AccountRejected, Source: sourceREST, Meaning: "the SDKAppID is not valid"},
	{Code: 60009, Name: "bad_resource", Verdict: AccountRejected, Source: sourceREST, Meaning: "there is no such resource at this URL"},
	{Code: 60010, Name: "not_administrator", Verdict: AccountRejected, Source: sourceREST, Meaning: "the identifier is not an administrator of the app"},
	{Code: 60012, Name: "no_app", Verdict: AccountRejected, Source: sourceREST, Meaning: "the URL names no SDKAppID"},
	{Code: 60016, Name: "app_disabled", Verdict: AccountRejected, Source: sourceREST, Meaning: "the app is disabled"},
	{Code: 60017, Name: "request_disabled", Verdict: AccountRejected, Source: sourceREST, Meaning: "this request is disabled for the app"},
	{Code: 60020, Name: "package_expired", Verdict: AccountRejected, Source: sourceREST, Meaning: "the account's package has run out"},
	{Code: 60021, Name: "address_refused", Verdict: AccountRejected, Source: sourceREST, Meaning: "requests from this IP address are not allowed"},
	{Code: 60025, Name: "package_refused", Verdict: AccountRejected, Source: sourceREST, Meaning: "the account's package does not cover the request, or its allowance is used up"},
	{Code: 60026, Name: "package_refused_2", Verdict: AccountRejected, Source: sourceREST, Meaning: "the account's package does not cover the request, or its allowance is used up"},
	{Code: 60027, Name: "package_refused_3", Verdict: AccountRejected, Source: sourceREST, Meaning: "the account's package does not cover the request, or its allowance is used up"},
	{Code: 60028, Name: "package_refused_4", Verdict: AccountRejected, Source: sourceREST, Meaning: "the account's package does not cover the request, or its allowance is used up"},
	{Code: 70001, Name: "usersig_expired", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig has expired; if a new one has too, this machine's clock is wrong", Resign: true},
	{Code: 70002, Name: "usersig_empty", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig is empty"},
	{Code: 70003, Name: "usersig_unreadable", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig cannot be decoded"},
	{Code: 70005, Name: "usersig_unreadable_2", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig cannot be decoded"},
	{Code: 70009, Name: "usersig_wrong_key", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig was signed with another key than the app's"},
	{Code: 70013, Name: "usersig_wrong_identifier", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig was made for another identifier"},
	{Code: 70014, Name: "usersig_wrong_app", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig was made for another SDKAppID"},
	{Code: 70015, Name: "usersig_no_method", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the API has no way to verify a UserSig of this app and account type"},
	{Code: 70016, Name: "usersig_no_key", Verdict: AccountRejected, Source: sourceAccount, Meaning: "this region has no key of the app; likely the wrong region"},
	{Code: 70017, Name: "usersig_refused", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig could not be verified"},
	{Code: 70018, Name: "usersig_refused_2", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig could not be verified"},
	{Code: 70019, Name: "usersig_refused_3", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig could not be verified"},
	{Code: 70020, Name: "unknown_app", Verdict: AccountRejected, Source: sourceAccount, Meaning: "this region has no such SDKAppID; likely the wrong region"},
	{Code: 70050, Name: "usersig_locked_out", Verdict: AccountRejected, Source: sourceAccount, Meaning: "locked out for a minute after too many bad UserSigs", Lockout: time.Minute},
	{Code: 70051, Name: "account_blocked", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the identifier is on the app's block list"},
	{Code: 70052, Name: "usersig_revoked", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the UserSig was revoked; a new one is valid", Resign: true},
	{Code: 70107, Name: "unknown_account", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the app has no account with this identifier"},
	{Code: 70114, Name: "account_restricted", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the account is restricted for security reasons"},
	{Code: 70403, Name: "not_administrator_2", Verdict: AccountRejected, Source: sourceAccount, Meaning: "the request needs an administrator of the app"},

	{Code: 60003, Name: "bad_json", Verdict: Rejected, Source: sourceREST, Meaning: "the API cannot read the request's JSON"},
	{Code: 60015, Name: "bad_field_type", Verdict: Rejected, Source: sourceREST, Meaning: "a field of the request has the wrong type"},
	{Code: 101002, Name: "bad_call_id", Verdict: Rejected, Source: sourceCall, Meaning: "the call service rejects the request's parameters"},
	{Code: 70402, Name: "bad_parameter", Verdict: Rejected, Source: sourceAccount, Meaning: "a parameter of the request is not valid"},
}
