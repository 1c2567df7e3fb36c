-- The role and the team of each action and escalation that another system reported, from the facts about its employee.

-- figure: reported
SELECT 'act-' || left(sha256(source || chr(10) || id), 32) AS name, role_of(text(d, 'agent_id'), moment) AS role,
       coalesce(text(d, 'team_id'), team_of(text(d, 'agent_id'), moment)) AS team
FROM facts WHERE type = 'action.reported'
UNION ALL
SELECT source || ' ' || text(d, 'escalation_id'), role_of(text(d, 'requested_by'), moment), team_of(text(d, 'requested_by'), moment)
FROM facts WHERE type = 'escalation.reported'
ORDER BY name;
