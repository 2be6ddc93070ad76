_m2sd_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _M2SD_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _m2sd_completion m2sd
