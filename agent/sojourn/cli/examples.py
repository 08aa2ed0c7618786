"""Examples for the help of every command. None is run here: a test reads each as the command would."""

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "validate": (
        "sojourn validate - --audience https://tickets.example.org",
        "sojourn validate - --audience https://tickets.example.org --task --action ticket:read",
    ),
    "explain": (
        "sojourn explain --pid $$",
        "sojourn explain --selector unix:uid:1000 --selector unix:path:/usr/bin/web",
    ),
    "status": ("sojourn status", "sojourn status --watch --interval 500ms"),
    "agent run": (
        "sojourn agent run --config deploy/samples/quickstart.toml",
        "sojourn agent run --trust-domain example.org --data-dir /tmp/agent --socket /tmp/agent.sock \\",
        "  --admin-socket /tmp/admin.sock",
    ),
    "entry create": (
        "sojourn entry create --spiffe-id spiffe://example.org/web --selector unix:user:web",
        "sojourn entry create --spiffe-id spiffe://example.org/db --selector unix:uid:70 \\",
        "  --selector unix:path:/usr/bin/postgres --x509-svid-ttl 30m --dns-name db.example.org",
    ),
    "entry show": ("sojourn entry show", "sojourn entry show ENTRY_ID --output json"),
    "entry list": ("sojourn entry list", "sojourn entry list --spiffe-id spiffe://example.org/web"),
    "entry update": ("sojourn entry update ENTRY_ID --x509-svid-ttl 10m --hint internal",),
    "entry delete": ("sojourn entry delete ENTRY_ID",),
    "entry count": ("sojourn entry count",),
    "entry apply": ("sojourn entry apply -f entries.yaml --dry-run", "sojourn entry apply -f entries.d --prune"),
    "entry adopt": ("sojourn entry adopt --dry-run", "sojourn entry adopt --from oldhost"),
    "entry export": ("sojourn entry export > entries.yaml",),
    "svid x509": ("sojourn svid x509", "sojourn svid x509 --write /tmp/svid --watch"),
    "svid jwt": ("sojourn svid jwt --audience https://tickets.example.org",),
    "svid rotate": ("sojourn svid rotate --all", "sojourn svid rotate --pid $$"),
    "svid revoke": (
        'sojourn svid revoke --spiffe-id spiffe://example.org/web --reason "key was copied"',
        "sojourn svid revoke --serial 62e5c57899759d507862116b866a56b9",
    ),
    "svid revoked": ("sojourn svid revoked",),
    "task run": (
        "sojourn task run --type triage-ticket -- python agent.py",
        "sojourn task run --type triage-ticket --param ticket=42 --ttl 10m --proxy -- ./agent",
    ),
    "task begin": ("TASK=$(sojourn task begin --type triage-ticket --ttl 5m)",),
    "task narrow": ("sojourn task narrow $TASK --resource https://tickets.example.org --action ticket:read",),
    "task delegate": ("sojourn task delegate $TASK --to spiffe://example.org/helper --max 5m > ticket",),
    "task accept": ("sojourn task accept --ticket-file ticket",),
    "task complete": ("sojourn task complete $TASK", "sojourn task complete $TASK --failed"),
    "task token": (
        "TOKEN=$(sojourn task token $TASK)",
        "sojourn task token $TASK --resource https://tickets.example.org --action ticket:read --bound",
    ),
    "task proof": ("sojourn task proof $TASK --url https://tickets.example.org/tickets/42 --token-file token",),
    "task digest": (
        "sojourn task digest --method POST --target /payments --content payment.json",
        "sojourn task digest --tool pay --arguments arguments.json",
    ),
    "task list": ("sojourn task list --all", "sojourn task list --watch"),
    "task show": ("sojourn task show $TASK",),
    "task why": ("sojourn task why $TASK",),
    "task suspend": ('sojourn task suspend $TASK --reason "looking into it"', "sojourn task suspend --type deploy"),
    "task resume": ("sojourn task resume $TASK", "sojourn task resume --type deploy"),
    "task revoke": ("sojourn task revoke $TASK", "sojourn task revoke --spiffe-id spiffe://example.org/agent/triage"),
    "task block": ('sojourn task block --type deploy --reason "freeze until Monday"',),
    "task unblock": ("sojourn task unblock --type deploy",),
    "task blocks": ("sojourn task blocks",),
    "approval list": ("sojourn approval list --watch",),
    "approval show": ("sojourn approval show apr_ID",),
    "approval approve": ('sojourn approval approve apr_ID --reason "agreed by phone"',),
    "approval deny": ('sojourn approval deny apr_ID --reason "not on a Friday"',),
    "review list": ("sojourn review list",),
    "review done": ('sojourn review done $TASK --finding "only what was needed"',),
    "fact set": (
        "sojourn fact set deploy_freeze true",
        "sojourn fact set risk 3 --subject spiffe://example.org/agent/triage --valid 10m",
    ),
    "fact unset": ("sojourn fact unset deploy_freeze",),
    "fact list": ("sojourn fact list",),
    "fact publish": ("sojourn fact publish queue_length 12 --valid 1m",),
    "fact deliver": ("sojourn fact deliver event.jwt",),
    "policy check": ("sojourn policy check deploy/samples/task-types --strict",),
    "policy test": ("sojourn policy test deploy/samples/task-types",),
    "policy explain": (
        "sojourn policy explain triage-ticket --workload spiffe://example.org/agent/triage \\",
        "  --action ticket:read --resource https://tickets.example.org",
    ),
    "policy reload": ("sojourn policy reload --dry-run", "sojourn policy reload"),
    "policy shadow-report": ("sojourn policy shadow-report",),
    "provider list": ("sojourn provider list",),
    "provider show": ("sojourn provider show vault",),
    "provider check": ("sojourn provider check vault --spiffe-id spiffe://example.org/agent/triage",),
    "provider residuals": ("sojourn provider residuals --task $TASK",),
    "authority show": ("sojourn authority show",),
    "authority prepare": ("sojourn authority prepare x509",),
    "authority activate": ("sojourn authority activate AUTHORITY_ID",),
    "authority rotate": ("sojourn authority rotate jwt", "sojourn authority rotate x509 --overlap 10m"),
    "authority taint": ("sojourn authority taint AUTHORITY_ID",),
    "authority revoke": ("sojourn authority revoke AUTHORITY_ID",),
    "bundle show": ("sojourn bundle show > bundle.pem", "sojourn bundle show --format spiffe"),
    "bundle list": ("sojourn bundle list",),
    "bundle set": ("sojourn bundle set partner.example bundle.json",),
    "bundle delete": ("sojourn bundle delete partner.example --mode dissociate",),
    "bundle publish": ("sojourn bundle publish --to /srv/www --watch",),
    "federation create": (
        "sojourn federation create partner.example --url https://partner.example/bundle.json --profile https_web",
    ),
    "federation update": (
        "sojourn federation update partner.example --url https://partner.example/b.json --profile https_web",
    ),
    "federation list": ("sojourn federation list",),
    "federation show": ("sojourn federation show partner.example",),
    "federation refresh": ("sojourn federation refresh partner.example",),
    "federation delete": ("sojourn federation delete partner.example",),
    "audit tail": (
        "sojourn audit tail --follow --event task_begun --event task_ended",
        "sojourn audit tail --since 2h --type deploy",
        "sojourn audit tail --follow --after 1200 --output json",
    ),
    "audit verify": ("sojourn audit verify",),
    "config show": ("sojourn config show --config agent.toml", "sojourn config show socket"),
}


def epilog(command: str) -> str | None:
    """What stands below a command's help; its lines are kept as they are."""
    lines = EXAMPLES.get(command)
    return None if lines is None else "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
